"""From a data set to checked case items: one fold of it, or its images to segment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from lora_ext.data.brats import check_found_labels
from lora_ext.data.checks import check_cases
from lora_ext.data.folds import draw_training_cases, split_cases
from lora_ext.data.form import Item
from lora_ext.data.regions import check_regions
from lora_ext.data.task import read_task


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
    resample_channels: bool = False,
    nan_to_num: bool = False,
    cache_rate: float = 0.0,
) -> dict[str, list[Item]]:
    """List the training and the validation cases of one fold of a data set.

    Only its labelled cases take part; its test cases never do. Folds that the data set gives are
    used, others are drawn. Every file of the items is checked before they are returned, see
    `check_cases`.

    Args:
        dataset_dir: the data set, of any layout that `read_task` reads.
        modalities: names of the channels to use, in the order the network takes them.
        regions: labels of each region.
        fold: which fold validates, 0 .. num_folds - 1.
        num_folds: number of folds.
        split_seed: seed of the split, and of the draw of training cases.
        training_cases: how many of the fold's training cases to keep, see `draw_training_cases`;
            None keeps all. The validation cases stay the same.
        spacing: the voxel size in mm that the images will be resampled to, see `check_cases`.
        record: JSON file that remembers which files passed the checks.
        resample_channels: see `check_cases`.
        nan_to_num: see `check_cases`.
        cache_rate: see `check_cases`.

    Returns:
        Case items under ``training`` and ``validation``, sorted by case.

    Raises:
        ValueError: a bad list, modality, region, fold, number of training cases or file.
    """
    task = read_task(dataset_dir, modalities, on_disk=("training",))
    channels = task.channel_indices(modalities)
    if task.labels:
        check_regions(regions, task.labels)
    if not task.training:
        raise ValueError(
            f"{task.source}: expected cases with a label map to train on (in a folder without a "
            "list, <case>_seg beside the image), got none"
        )
    cases = {case.name: case for case in task.training}
    folds = {name: case.fold for name, case in cases.items()}
    names, validation = split_cases(folds, fold, num_folds, split_seed)
    training = draw_training_cases(names, training_cases, split_seed)
    items = [task.item(cases[name], channels) for name in (*training, *validation)]
    found = check_cases(
        items,
        channel_names=task.channels,
        modalities=modalities,
        label_values=task.labels or None,
        spacing=spacing,
        record=record,
        resample_channels=resample_channels,
        nan_to_num=nan_to_num,
        cache_rate=cache_rate,
    )
    if not task.labels:
        check_found_labels(found, regions, task.regions, task.source)
    return {"training": items[: len(training)], "validation": items[len(training) :]}


def inference_cases(
    dataset_dir: str | os.PathLike[str],
    modalities: Sequence[str],
    *,
    spacing: Sequence[float] | None = None,
    record: str | os.PathLike[str] | None = None,
    resample_channels: bool = False,
    nan_to_num: bool = False,
) -> list[Item]:
    """List the images to segment of a data set, or of any folder of images.

    A data set with a list gives its test images, or its training images when it lists no test
    image; a folder without one gives all. Every file is checked before the items are returned, see
    `check_cases`.

    Args:
        dataset_dir: the data set, of any layout that `read_task` reads.
        modalities: names of the channels that the network takes, in its order.
        spacing: the voxel size in mm that the images will be resampled to, see `check_cases`.
        record: JSON file that remembers which files passed the checks.
        resample_channels: see `check_cases`.
        nan_to_num: see `check_cases`.

    Returns:
        Case items without labels, sorted by case.

    Raises:
        ValueError: a missing folder, one that is laid out otherwise, or a bad file.
    """
    # Of a list, the files that are used are checked below.
    task = read_task(dataset_dir, modalities, on_disk=(), labelled=False)
    channels = task.channel_indices(modalities)
    items = [task.item(case, channels, labelled=False) for case in task.test or task.training]
    check_cases(
        items,
        channel_names=task.channels,
        modalities=modalities,
        spacing=spacing,
        record=record,
        resample_channels=resample_channels,
        nan_to_num=nan_to_num,
    )
    return sorted(items, key=lambda item: item["case"])
