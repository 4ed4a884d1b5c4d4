"""From a data folder to checked case items: a task's folds, or images to segment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_ext.data.checks import check_cases
from lora_ext.data.folders import folder_items
from lora_ext.data.folds import draw_training_cases, split_fold
from lora_ext.data.regions import check_regions
from lora_ext.data.task import CasePaths, read_task

Item = dict[str, Any]


def fold_cases(
    dataset_dir: str | os.PathLike[str],
    modalities: Sequence[str],
    regions: Mapping[str, Sequence[int]],
    *,
    fold: int,
    num_folds: int,
    split_seed: int,
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
        split_seed: seed of the split, and of the draw of training cases.
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
    names, validation = split_fold(items, fold, num_folds, split_seed)
    training = draw_training_cases(names, training_cases, split_seed)
    kept = [items[name] for name in (*training, *validation)]
    check_cases(kept, channel_names=task.channels, label_values=task.labels, record=record)
    return {"training": kept[: len(training)], "validation": kept[len(training) :]}


def inference_cases(
    dataset_dir: str | os.PathLike[str],
    modalities: Sequence[str],
    *,
    record: str | os.PathLike[str] | None = None,
) -> list[Item]:
    """Lists the images to segment, of a Decathlon task or of any folder of images.

    A task folder gives its test images, or its training images when it lists no test image. What
    another folder may hold tells `folder_items`. Every file is checked before the items are
    returned, see `check_cases`.

    Args:
        dataset_dir: the task folder or the folder of images.
        modalities: names of the channels that the network takes, in its order.
        record: JSON file that remembers which files passed the checks.

    Returns:
        Case items without labels, sorted by case.

    Raises:
        ValueError: a missing folder, one that is laid out otherwise, or a bad file.
    """
    root = Path(dataset_dir).expanduser().absolute()
    if (root / "dataset.json").is_file() or not root.is_dir():
        task = read_task(root, on_disk=())  # the files of the list that is used are checked below
        channels = task.channel_indices(modalities)
        cases = [CasePaths(case.name, case.image) for case in task.test or task.training]
        items, names = [_item(case, channels) for case in cases], task.channels
    else:
        names = _distinct(modalities)
        items = folder_items(root, names)
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
