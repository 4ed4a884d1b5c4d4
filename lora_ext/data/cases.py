"""From a data folder to checked case items: a task's folds, or images to segment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_ext.data.checks import check_cases
from lora_ext.data.folders import folder_items
from lora_ext.data.folds import draw_training_cases, split_fold
from lora_ext.data.regions import check_regions
from lora_ext.data.task import Item, case_item, read_task


def fold_cases(
    dataset_dir: str | os.PathLike[str],
    modalities: Sequence[str],
    regions: Mapping[str, Sequence[int]],
    *,
    fold: int,
    num_folds: int,
    split_seed: int,
    training_cases: int | None = None,
    spacing: Sequence[float] | None = None,
    record: str | os.PathLike[str] | None = None,
) -> dict[str, list[Item]]:
    """List the training and the validation cases of one fold of a Decathlon task.

    Only the task's labelled cases take part; its test cases never do. Every file of the items is
    checked before they are returned, see `check_cases`.

    Args:
        dataset_dir: the task folder, which holds dataset.json.
        modalities: names of the channels to use, in the order the network takes them.
        regions: labels of each region.
        fold: which fold validates, 0 .. num_folds - 1.
        num_folds: number of folds.
        split_seed: seed of the split, and of the draw of training cases.
        training_cases: how many of the fold's training cases to keep, see `draw_training_cases`;
            None keeps all. The validation cases stay the same.
        spacing: the voxel size in mm that the images will be resampled to, see `check_cases`.
        record: JSON file that remembers which files passed the checks.

    Returns:
        Case items under ``training`` and ``validation``, sorted by case.

    Raises:
        ValueError: a bad dataset.json, modality, region, fold, number of training cases or file.
    """
    task = read_task(dataset_dir, on_disk=("training",))
    channels = task.channel_indices(modalities)
    check_regions(regions, task.labels)
    cases = {case.name: case for case in task.training}
    names, validation = split_fold(cases, fold, num_folds, split_seed)
    training = draw_training_cases(names, training_cases, split_seed)
    items = [
        case_item(name, cases[name].image, channels, cases[name].label)
        for name in (*training, *validation)
    ]
    check_cases(
        items,
        channel_names=task.channels,
        label_values=task.labels,
        spacing=spacing,
        record=record,
    )
    return {"training": items[: len(training)], "validation": items[len(training) :]}


def inference_cases(
    dataset_dir: str | os.PathLike[str],
    modalities: Sequence[str],
    *,
    spacing: Sequence[float] | None = None,
    record: str | os.PathLike[str] | None = None,
) -> list[Item]:
    """List the images to segment, of a Decathlon task or of any folder of images.

    A task folder gives its test images, or its training images when it lists no test image. For
    what another folder may hold see `folder_items`. Every file is checked before the items are
    returned, see `check_cases`.

    Args:
        dataset_dir: the task folder or the folder of images.
        modalities: names of the channels that the network takes, in its order.
        spacing: the voxel size in mm that the images will be resampled to, see `check_cases`.
        record: JSON file that remembers which files passed the checks.

    Returns:
        Case items without labels, sorted by case.

    Raises:
        ValueError: a missing folder, one that is laid out otherwise, or a bad file.
    """
    root = Path(dataset_dir).expanduser().absolute()
    if (root / "dataset.json").is_file() or not root.is_dir():
        task = read_task(root, on_disk=())  # the files of the list that is used are checked below
        channels, names = task.channel_indices(modalities), task.channels
        items = [case_item(c.name, c.image, channels) for c in task.test or task.training]
    else:
        names = () if isinstance(modalities, str) else tuple(str(name) for name in modalities)
        if not names or len({name.lower() for name in names}) < len(names):
            raise ValueError(
                f"modalities: expected a list of names, each of them once, got {modalities!r}"
            )
        items = folder_items(root, names)
    check_cases(items, channel_names=names, spacing=spacing, record=record)
    return sorted(items, key=lambda item: item["case"])
