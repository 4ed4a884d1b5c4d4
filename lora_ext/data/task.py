"""A Medical Segmentation Decathlon task folder, read from its dataset.json."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lora_ext.images.image_file import case_name

Item = dict[str, Any]  # a case item, see `lora_ext.data`


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
        """Find the channels of the named modalities.

        Args:
            modalities: names as in dataset.json, in any order, in upper or lower case.

        Returns:
            Index of each modality's channel in the image files, in the order asked.

        Raises:
            ValueError: no modality, one the task does not have, or one asked twice.
        """
        available = ", ".join(self.channels)
        if isinstance(modalities, str) or not modalities:
            raise ValueError(
                f"modalities: expected a list of names out of {available}, got {modalities!r}"
            )
        index = {channel.lower(): i for i, channel in enumerate(self.channels)}
        asked = [str(modality).lower() for modality in modalities]
        for modality, name in zip(modalities, asked, strict=True):
            if name not in index:
                raise ValueError(
                    f"modality {modality!r} is not in {self.root / 'dataset.json'}; "
                    f"available are {available}"
                )
            if asked.count(name) > 1:
                raise ValueError(
                    f"modalities: expected each of {available} once, got {modality!r} twice"
                )
        return [index[name] for name in asked]


def read_task(
    dataset_dir: str | os.PathLike[str], *, on_disk: Collection[str] = ("training", "test")
) -> MSDTask:
    """Read a task folder's dataset.json and check what it lists.

    Args:
        dataset_dir: the folder that holds dataset.json.
        on_disk: the lists whose files must exist; training needs no test images on disk.

    Returns:
        The task, its paths absolute.

    Raises:
        ValueError: a missing folder, dataset.json, key or file; modalities, labels or case lists
            that are not in the Decathlon's form; a case or a file listed twice, or a case both as
            training and as test; a path that leaves the folder.
    """
    root = Path(dataset_dir).expanduser().absolute()
    source = root / "dataset.json"
    content = _load(root, source)
    cases = {
        "training": tuple(
            _case(source, entry, ("image", "label")) for entry in content["training"]
        ),
        "test": tuple(_case(source, entry, ("image",)) for entry in content.get("test", [])),
    }
    _check_listed_once(source, cases)
    for path in (p for name in on_disk for case in cases[name] for p in (case.image, case.label)):
        if path is not None and not path.is_file():
            raise ValueError(f"{path}: found no such file; {source} lists it")
    return MSDTask(
        root=root,
        channels=_channels(source, content["modality"]),
        labels=_labels(source, content["labels"]),
        **cases,
    )


def case_item(
    name: str,
    image: Path | list[str],
    channels: Sequence[int],
    label: Path | None = None,
) -> Item:
    """Make the case item of a MONAI dataset.

    Args:
        name: the case.
        image: path of the image, or one path per channel.
        channels: which channels of the loaded image to keep.
        label: path of the label map, None without one.

    Returns:
        The case item, see `lora_ext.data`.
    """
    paths = image if isinstance(image, list) else str(image)
    labelled = {} if label is None else {"label": str(label)}
    return {"case": name, "image": paths, **labelled, "channels": list(channels)}


def _load(root: Path, source: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise ValueError(f"{root}: found no such folder; dataset_dir must be an existing folder")
    if not source.is_file():
        raise ValueError(f"{root}: found no dataset.json; a Decathlon task folder must hold one")
    try:
        content = json.loads(source.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError(f"{source}: expected a list of cases, got JSON nested too deep") from error
    except ValueError as error:
        raise ValueError(f"{source}: expected valid JSON, got an error ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{source}: expected a JSON object, got a {type(content).__name__}")
    for key, kind in {"modality": dict, "labels": dict, "training": list, "test": list}.items():
        if key not in content and key != "test":
            raise ValueError(
                f"{source}: expected the keys modality, labels and training, got no {key!r}"
            )
        if not isinstance(content.get(key, kind()), kind):
            got = type(content[key]).__name__
            raise ValueError(f"{source}: expected a {kind.__name__} at {key!r}, got a {got}")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of JSON's pairs; of two equal keys Python would keep the second in silence."""
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise ValueError(f"the key {key!r} stands there {count} times")
    return dict(pairs)


def _channels(source: Path, modality: dict[str, str]) -> tuple[str, ...]:
    keys = [str(i) for i in range(len(modality))]
    if not modality or set(modality) != set(keys):
        raise ValueError(
            f"{source}: expected the modality keys 0, 1, ... without a gap, "
            f"got {', '.join(modality) or 'none'}"
        )
    names = tuple(str(modality[key]) for key in keys)
    if len({name.lower() for name in names}) < len(names):
        raise ValueError(
            f"{source}: expected each modality once, upper and lower case alike, "
            f"got {', '.join(names)}"
        )
    return names


def _labels(source: Path, labels: dict[str, str]) -> dict[int, str]:
    if not all(key.isdecimal() for key in labels) or "0" not in labels:
        raise ValueError(
            f"{source}: expected label keys that are integers, with 0 for the background, "
            f"got {', '.join(labels) or 'none'}"
        )
    return {int(key): str(name) for key, name in labels.items()}


def _case(source: Path, entry: Any, keys: tuple[str, ...]) -> CasePaths:
    if keys == ("image",) and isinstance(entry, str):
        entry = {"image": entry}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in keys):
        name = "training" if "label" in keys else "test"
        raise ValueError(
            f"{source}: expected a path for each of {', '.join(keys)}, "
            f"got the {name} entry {entry!r}"
        )
    paths = []
    for path in (entry[key] for key in keys):
        # By the text of the path: a link that the user put into the folder is theirs to follow.
        relative = os.path.normpath(path)
        if os.path.isabs(path) or PurePosixPath(relative).parts[:1] == ("..",):
            raise ValueError(f"{source}: expected paths inside {source.parent}, got {path!r}")
        paths.append(source.parent / relative)
    return CasePaths(case_name(paths[0]), *paths)


def _check_listed_once(source: Path, cases: dict[str, tuple[CasePaths, ...]]) -> None:
    lists = {key: Counter(case.name for case in listed) for key, listed in cases.items()}
    for key, counts in lists.items():
        for name, count in counts.items():
            if count > 1:
                raise ValueError(
                    f"{source}: expected each case once, got {name} {count} times in {key}"
                )
    for name in sorted(lists["training"].keys() & lists["test"].keys()):
        raise ValueError(f"{source}: expected each case once, got {name} in training and in test")
    files = Counter(
        path for listed in cases.values() for c in listed for path in (c.image, c.label) if path
    )
    for path, count in files.items():
        if count > 1:
            raise ValueError(
                f"{source}: expected each file once, got {path.relative_to(source.parent)} {count} "
                "times; every image needs a label map of its own"
            )
