"""From a data folder to checked case items: a task's folds, or images to segment."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_ext.data.checks import check_cases, open_image
from lora_ext.data.folds import draw_training_cases, split_fold
from lora_ext.data.regions import check_regions
from lora_ext.data.task import NIFTI_SUFFIXES, CasePaths, case_name, read_task

logger = logging.getLogger(__name__)

Item = dict[str, Any]


def fold_cases(
    dataset_dir: str | os.PathLike[str],
    modalities: Sequence[str],
    regions: Mapping[str, Sequence[int]],
    *,
    fold: int,
    num_folds: int,
    seed: int,
    training_cases: int | None = None,
    record: str | os.PathLike[str] | None = None,
) -> dict[str, list[Item]]:
    """Lists the training and the validation cases of one fold of a Decathlon task.

    Only the task's labelled cases take part; its test cases never do. Every file of the items is
    checked before they are returned, see `check_cases`.

    Args:
        dataset_dir: the task folder, which holds dataset.json.
        modalities: names of the channels to use, in the order the network takes them.
        regions: labels of each region.
        fold: which fold validates, 0 .. num_folds - 1.
        num_folds: number of folds.
        seed: seed of the split, and of the draw of training cases.
        training_cases: how many of the fold's training cases to keep, see `draw_training_cases`;
            None keeps all. The validation cases stay the same.
        record: JSON file that remembers which files passed the checks.

    Returns:
        Case items under ``training`` and ``validation``, sorted by case.

    Raises:
        ValueError: a bad dataset.json, modality, region, fold, number of training cases or file.
    """
    task = read_task(dataset_dir, on_disk=("training",))
    channels = task.channel_indices(modalities)
    check_regions(regions, task.labels)
    items = {case.name: _item(case, channels) for case in task.training}
    names, validation = split_fold(items, fold, num_folds, seed)
    training = draw_training_cases(names, training_cases, seed)
    kept = [items[name] for name in (*training, *validation)]
    check_cases(kept, channel_names=task.channels, label_values=task.labels, record=record)
    return {"training": kept[: len(training)], "validation": kept[len(training) :]}


def inference_cases(
    dataset_dir: str | os.PathLike[str],
    modalities: Sequence[str],
    *,
    record: str | os.PathLike[str] | None = None,
) -> list[Item]:
    """Lists the images to segment, of a Decathlon task or of any folder of NIfTI images.

    A task folder gives its test images, or its training images when it lists no test image. Another
    folder (not its sub-folders) holds one 4D file per case with the channels of `modalities` in
    that order, or one 3D file per channel named ``<case>_<modality>.nii.gz`` (modality in any upper
    or lower case), or, for a single modality, one 3D file per case. Every file is checked before
    the items are returned, see `check_cases`.

    Args:
        dataset_dir: the task folder or the folder of images.
        modalities: names of the channels that the network takes, in its order.
        record: JSON file that remembers which files passed the checks.

    Returns:
        Case items without labels, sorted by case.

    Raises:
        ValueError: a missing folder, no image in it, a missing channel's file, two files for one
            channel of a case, a file that belongs to no case, or a bad file.
    """
    root = Path(dataset_dir).expanduser().absolute()
    if (root / "dataset.json").is_file() or not root.is_dir():
        task = read_task(root, on_disk=())  # the files of the list that is used are checked below
        channels = task.channel_indices(modalities)
        cases = [CasePaths(case.name, case.image) for case in task.test or task.training]
        items, names = [_item(case, channels) for case in cases], task.channels
    else:
        names = _distinct(modalities)
        items = _folder_items(root, names)
    check_cases(items, channel_names=names, record=record)
    return sorted(items, key=lambda item: item["case"])


def _item(case: CasePaths, channels: list[int]) -> Item:
    label = {} if case.label is None else {"label": str(case.label)}
    return {"case": case.name, "image": str(case.image), **label, "channels": list(channels)}


def _distinct(modalities: Sequence[str]) -> tuple[str, ...]:
    names = () if isinstance(modalities, str) else tuple(str(name) for name in modalities)
    if not names or len({name.lower() for name in names}) < len(names):
        raise ValueError(
            f"modalities: found {modalities!r}; allowed is a list of names, each of them once"
        )
    return names


def _folder_items(root: Path, modalities: tuple[str, ...]) -> list[Item]:
    files = sorted(
        path
        for path in root.iterdir()
        if path.is_file()
        and path.name.lower().endswith(NIFTI_SUFFIXES)
        and not path.name.startswith(".")  # macOS writes a '._' twin of every file
    )
    if not files:
        raise ValueError(
            f"{root}: found no image; allowed are a folder of .nii or .nii.gz files, "
            f"or a Decathlon task folder with a dataset.json"
        )
    whole: dict[str, Path] = {}
    split: dict[str, dict[str, Path]] = {}
    rest: list[Path] = []
    for path in files:
        case, modality = _split_name(case_name(path), modalities)
        if _has_channels(path):
            _put(whole, case_name(path), path, "the image")
        elif modality is None:
            rest.append(path)
        else:
            _put(split.setdefault(case, {}), modality, path, f"the channel {modality}")
    _sort_rest(rest, whole, split, modalities)
    return _whole_items(whole, split, modalities) + _split_items(root, split, modalities)


def _split_name(stem: str, modalities: tuple[str, ...]) -> tuple[str, str | None]:
    """Case and modality of ``<case>_<modality>``; the longest modality that fits counts."""
    for modality in sorted(modalities, key=len, reverse=True):
        case = stem[: -len(modality) - 1]
        if case and stem.lower().endswith(f"_{modality.lower()}"):
            return case, modality
    return stem, None


def _has_channels(path: Path) -> bool:
    shape = open_image(str(path)).shape
    return len(shape) > 3 and shape[3] > 1


def _put(files: dict[str, Path], key: str, path: Path, what: str) -> None:
    if key in files:
        raise ValueError(
            f"{path}: found a second file for {what} of its case, next to {files[key]}"
        )
    files[key] = path


def _sort_rest(
    rest: list[Path],
    whole: dict[str, Path],
    split: dict[str, dict[str, Path]],
    modalities: tuple[str, ...],
) -> None:
    """Ignores other files of known cases; the others are cases where there is one modality."""
    known = tuple(f"{case}_" for case in (*whole, *split))
    for path in rest:
        name = case_name(path)
        if name.startswith(known):
            logger.info("%s: ignored, it is none of %s", path, ", ".join(modalities))
        elif len(modalities) == 1:
            _put(split.setdefault(name, {}), modalities[0], path, f"the channel {modalities[0]}")
        else:
            raise ValueError(
                f"{path}: found a single channel; allowed are files of {len(modalities)} channels, "
                f"or <case>_<modality>.nii.gz with a modality out of {', '.join(modalities)}"
            )


def _whole_items(
    whole: dict[str, Path], split: dict[str, dict[str, Path]], modalities: tuple[str, ...]
) -> list[Item]:
    for case in sorted(whole.keys() & split.keys()):
        raise ValueError(
            f"{whole[case]}: found a second image of case {case}, next to "
            f"{next(iter(split[case].values()))}; allowed is one"
        )
    channels = list(range(len(modalities)))
    return [_item(CasePaths(case, path), channels) for case, path in whole.items()]


def _split_items(
    root: Path, split: dict[str, dict[str, Path]], modalities: tuple[str, ...]
) -> list[Item]:
    items: list[Item] = []
    for case, files in split.items():
        for modality in modalities:
            if modality not in files:
                raise ValueError(
                    f"{root}: found no {modality} file of case {case}; "
                    f"allowed is {case}_{modality}.nii.gz"
                )
        images = [str(files[modality]) for modality in modalities]
        image = images if len(images) > 1 else images[0]
        items.append({"case": case, "image": image, "channels": list(range(len(images)))})
    return items
