"""A Medical Segmentation Decathlon task folder, read from its dataset.json."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lora_ext.images.image_file import case_name


@dataclass(frozen=True)
class CasePaths:
    """One case of a task.

    Attributes:
        name: the image's file name without its ending.
        image: absolute path of the image.
        label: absolute path of the label map, None for a test case.
    """

    name: str
    image: Path
    label: Path | None = None


@dataclass(frozen=True)
class MSDTask:
    """A task in Medical Segmentation Decathlon layout (Antonelli et al. 2022).

    Attributes:
        root: the folder that holds dataset.json, absolute.
        channels: modality names in the order of the image files' channels.
        labels: name of each label value, background (0) included.
        training: the labelled cases, in dataset.json's order.
        test: the cases without labels, in dataset.json's order.
    """

    root: Path
    channels: tuple[str, ...]
    labels: dict[int, str]
    training: tuple[CasePaths, ...]
    test: tuple[CasePaths, ...]

    def channel_indices(self, modalities: Sequence[str]) -> list[int]:
        """Finds the channels of the named modalities.

        Args:
            modalities: names as in dataset.json, in any order and any case.

        Returns:
            Index of each modality's channel in the image files, in the order asked.

        Raises:
            ValueError: no modality, one the task does not have, or one asked twice.
        """
        available = ", ".join(self.channels)
        if isinstance(modalities, str) or not modalities:
            raise ValueError(
                f"modalities: found {modalities!r}; allowed is a list of names out of {available}"
            )
        index = {channel.lower(): i for i, channel in enumerate(self.channels)}
        indices: list[int] = []
        for modality in modalities:
            if str(modality).lower() not in index:
                raise ValueError(
                    f"modality {modality!r} is not in {self.root / 'dataset.json'}; "
                    f"available are {available}"
                )
            indices.append(index[str(modality).lower()])
            if indices.count(indices[-1]) > 1:
                raise ValueError(
                    f"modality {modality!r} is asked twice in {list(modalities)}; "
                    f"each of {available} is allowed once"
                )
        return indices


def read_task(
    dataset_dir: str | os.PathLike[str], *, on_disk: Collection[str] = ("training", "test")
) -> MSDTask:
    """Reads a task folder's dataset.json and checks what it lists.

    Args:
        dataset_dir: the folder that holds dataset.json.
        on_disk: the lists whose files must exist; training needs no test images on disk.

    Returns:
        The task, its paths absolute.

    Raises:
        ValueError: a missing folder, dataset.json, key or file; modalities, labels or case lists
            that are not in the Decathlon's form; a case listed twice or both as training and as
            test; a path that leaves the folder.
    """
    root = Path(dataset_dir).expanduser().absolute()
    source = root / "dataset.json"
    content = _load(root, source)
    training = tuple(_case(root, source, entry, True) for entry in content["training"])
    test = tuple(_case(root, source, entry, False) for entry in content.get("test", []))
    _check_once(source, training, test)
    lists = {"training": training, "test": test}
    for path in (p for name in on_disk for case in lists[name] for p in (case.image, case.label)):
        if path is not None and not path.is_file():
            raise ValueError(f"{path}: found no such file; {source} lists it")
    return MSDTask(
        root=root,
        channels=_channels(source, content["modality"]),
        labels=_labels(source, content["labels"]),
        training=training,
        test=test,
    )


def _load(root: Path, source: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise ValueError(f"{root}: found no such folder; dataset_dir must be an existing folder")
    if not source.is_file():
        raise ValueError(f"{root}: found no dataset.json; a Decathlon task folder must hold one")
    try:
        content = json.loads(source.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{source}: found no valid JSON ({error})") from error
    kinds = {"modality": dict, "labels": dict, "training": list, "test": list}
    if not isinstance(content, dict):
        raise ValueError(f"{source}: found a {type(content).__name__}; allowed is a JSON object")
    for key, kind in kinds.items():
        if key not in content and key != "test":
            raise ValueError(
                f"{source}: found no key {key!r}; modality, labels and training are required"
            )
        if not isinstance(content.get(key, kind()), kind):
            found = type(content[key]).__name__
            raise ValueError(f"{source}: found a {found} at {key!r}; allowed is a {kind.__name__}")
    return content


def _channels(source: Path, modality: dict[str, str]) -> tuple[str, ...]:
    expected = [str(i) for i in range(len(modality))]
    if not modality or set(modality) != set(expected):
        raise ValueError(
            f"{source}: found the modality keys {', '.join(modality) or 'none'}; "
            f"allowed are 0, 1, ... without a gap"
        )
    names = tuple(str(modality[key]) for key in expected)
    if len({name.lower() for name in names}) < len(names):
        raise ValueError(
            f"{source}: found the modalities {', '.join(names)}; each name is allowed once, "
            f"upper and lower case alike"
        )
    return names


def _labels(source: Path, labels: dict[str, str]) -> dict[int, str]:
    if not all(key.isdecimal() for key in labels) or "0" not in labels:
        raise ValueError(
            f"{source}: found the label keys {', '.join(labels) or 'none'}; "
            f"allowed are integers, with 0 for the background"
        )
    return {int(key): str(name) for key, name in labels.items()}


def _case(root: Path, source: Path, entry: Any, labelled: bool) -> CasePaths:
    if not labelled and isinstance(entry, str):
        entry = {"image": entry}
    keys = ("image", "label") if labelled else ("image",)
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in keys):
        raise ValueError(
            f"{source}: found the {'training' if labelled else 'test'} entry {entry!r}; "
            f"allowed is a path for each of {', '.join(keys)}"
        )
    image, *label = (_inside(root, source, entry[key]) for key in keys)
    return CasePaths(case_name(image), image, *label)


def _inside(root: Path, source: Path, entry: str) -> Path:
    # By the text of the path: a link that the user put into the folder is theirs to follow.
    relative = os.path.normpath(entry)
    if os.path.isabs(entry) or PurePosixPath(relative).parts[:1] == ("..",):
        raise ValueError(f"{source}: found the path {entry!r}; allowed are paths inside {root}")
    return root / relative


def _check_once(source: Path, training: Iterable[CasePaths], test: Iterable[CasePaths]) -> None:
    counts = {
        "training": Counter(case.name for case in training),
        "test": Counter(case.name for case in test),
    }
    for list_name, count in counts.items():
        for name in (name for name, times in count.items() if times > 1):
            raise ValueError(
                f"{source}: found the case {name} {count[name]} times in {list_name}; allowed once"
            )
    for name in sorted(counts["training"].keys() & counts["test"].keys()):
        raise ValueError(
            f"{source}: found the case {name} in training and in test; allowed in one of them"
        )
