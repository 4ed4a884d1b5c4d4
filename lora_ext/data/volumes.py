"""Single-channel volumes to pre-train on: any folder of images, or every channel of a task."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lora_ext.data.checks import check_cases
from lora_ext.data.folds import split_cases
from lora_ext.data.form import CasePaths, Item, Task, case_item
from lora_ext.data.intensity import KINDS, Intensity, named_kind
from lora_ext.data.modalities import every_alias, split_name
from lora_ext.data.task import LISTS, read_task
from lora_ext.images.image_file import ENDINGS, case_name, ending
from lora_ext.images.listing import files_below, listed
from lora_ext.images.reader import open_image

logger = logging.getLogger(__name__)


@dataclass
class Patients:
    """Volumes by patient, and the fold in which each validates where the data set gives one."""

    volumes: dict[str, list[Item]]
    folds: dict[str, int | None]


MOST_CHANNELS = 4  # volumes in a file; more are a diffusion or a time series

_LABELS = 128  # values; a label map has fewer
_LABEL_MAP = re.compile("seg|label|mask", re.IGNORECASE)
_PATIENT = (
    "a first-level sub-folder of dataset_dir, or the files <patient>_<modality> that lie in none"
)


def fold_volumes(
    dataset_dir: str | os.PathLike[str],
    *,
    fold: int,
    num_folds: int,
    split_seed: int,
    spacing: Sequence[float] | None = None,
    record: str | os.PathLike[str] | None = None,
    nan_to_num: bool = False,
) -> dict[str, list[Item]]:
    """List the volumes to train on and the held-out volumes of one fold.

    Every image channel is a volume of its own. All volumes of one patient are on the same side of
    the split. The patients of a listed data set (Decathlon, nnU-Net, datalist) are its labelled
    cases, split exactly as `fold_cases` splits them: an encoder that was pre-trained with the same
    fold, number of folds and split_seed has never seen the segmentation's validation cases. Another
    folder is searched with its sub-folders, linked ones too; data sets in it are split each on
    their own, and of the other files a patient is a first-level sub-folder, or the files
    ``<patient>_<modality>`` that lie in none, as `read_folder` has it. Of those files label maps
    are left out, and of a series (more than `MOST_CHANNELS` volumes in a file) all but the first
    volume. Every file is checked before the items are returned, see `check_cases`.

    Args:
        dataset_dir: a data set, or any folder with NIfTI, NRRD or MetaImage files or data sets.
        fold: which fold is held out, 0 .. num_folds - 1.
        num_folds: number of folds.
        split_seed: seed of the split.
        spacing: the voxel size in mm that the volumes will be resampled to, see `check_cases`.
        record: JSON file that remembers which files passed the checks.
        nan_to_num: see `check_cases`.

    Returns:
        Volume items (``case``, ``image``, ``channels`` of one channel) under ``training`` and
        ``validation``, sorted by patient.

    Raises:
        ValueError: a bad dataset.json, fold or file, a folder without images, or fewer
            patients than folds.
    """
    volumes: dict[str, list[Item]] = {"training": [], "validation": []}
    for source, found in _sources(dataset_dir, spacing, record, nan_to_num).items():
        patients = found.volumes
        if len(patients) < num_folds and not any(fold is not None for fold in found.folds.values()):
            raise ValueError(
                f"{source}: expected at least as many patients as --num_folds, {num_folds}, got "
                f"{len(patients)} ({', '.join(sorted(patients)[:4])}); a patient is {_PATIENT}; "
                "lower --num_folds or, where sub-folders are sources, link the patients' own "
                "folders into one"
            )
        sides = split_cases(found.folds, fold, num_folds, split_seed)
        for side, names in zip(volumes, sides, strict=True):
            volumes[side] += [item for name in names for item in patients[name]]
    return volumes


def all_volumes(
    dataset_dir: str | os.PathLike[str],
    *,
    spacing: Sequence[float] | None = None,
    record: str | os.PathLike[str] | None = None,
    nan_to_num: bool = False,
) -> list[Item]:
    """List every volume that `fold_volumes` finds, unsplit.

    Args:
        dataset_dir: as for `fold_volumes`.
        spacing: as for `fold_volumes`.
        record: JSON file that remembers which files passed the checks.
        nan_to_num: see `check_cases`.

    Returns:
        Volume items, sorted by patient.

    Raises:
        ValueError: a bad dataset.json or file, or a folder without images.
    """
    sources = [p.volumes for p in _sources(dataset_dir, spacing, record, nan_to_num).values()]
    return [item for patients in sources for name in sorted(patients) for item in patients[name]]


def count_volumes(items: Sequence[Item], intensity: Intensity) -> dict[str, dict[str, int | str]]:
    """Count volumes by modality, for the record of an encoder and the console.

    Args:
        items: volume items, see `fold_volumes`.
        intensity: see `channel_kinds`.

    Returns:
        By the name of a modality, with ``unnamed`` for volumes that no data set names: ``volumes``,
        how many there are, and ``intensity``, by whose rule they are normalised; ``by values`` for
        unnamed ones that count as CT or MR each by its own voxels, see `volume_kind`.
    """
    counts = Counter(item.get("modality") for item in items)
    named = sorted(name for name in counts if name is not None)
    found: dict[str, dict[str, int | str]] = {
        name: {"volumes": counts[name], "intensity": named_kind(name, intensity)} for name in named
    }
    if None in counts:
        kind = intensity if intensity in KINDS else "by values"
        found["unnamed"] = {"volumes": counts[None], "intensity": str(kind)}
    return found


def _sources(
    dataset_dir: str | os.PathLike[str],
    spacing: Sequence[float] | None,
    record: str | os.PathLike[str] | None,
    nan_to_num: bool,
) -> dict[Path, Patients]:
    """Find the data sets at or below a folder and its other files, each with its patients."""
    root = Path(dataset_dir).expanduser().absolute()
    check = partial(check_cases, spacing=spacing, record=record, nan_to_num=nan_to_num)
    if root.is_file():
        return {root: _task_volumes(root, check)}
    files = files_below(root)
    tasks = {path.parent for path in files if path.name in LISTS}
    sources = {task: _task_volumes(task, check) for task in sorted(tasks)}
    images = [path for path in files if ending(path) and not set(path.parents) & tasks]
    loose = _without_label_maps(images)
    if loose:
        sources[root] = _folder_volumes(root, loose, check)
    if not sources:
        raise ValueError(
            f"{root}: found no image; dataset_dir must be a folder with files that end in "
            f"{', '.join(ENDINGS)}, or with a dataset.json or datalist.json"
        )
    return sources


def _without_label_maps(files: list[Path]) -> list[Path]:
    """Leave out the files that are label maps by their names and by their values."""
    named = [path for path in files if _LABEL_MAP.search(f"{path.parent.name}/{path.name}")]
    label_maps = [path for path in named if _holds_labels(path)]
    if label_maps:
        logger.info(
            "%d files are left out as label maps (named seg, label or mask, with fewer than %d "
            "whole numbers in them): %s",
            *(len(label_maps), _LABELS, listed([path.name for path in label_maps])),
        )
    return [path for path in files if path not in set(label_maps)]


def _holds_labels(path: Path) -> bool:
    found = np.unique(open_image(str(path)).read())
    return len(found) < _LABELS and bool((found == np.round(found)).all())


def _task_volumes(source: Path, check: Callable[..., set[int]]) -> Patients:
    task = read_task(source, on_disk=("training",))
    cases = task.training or task.test
    every = range(len(task.channels))
    check([task.item(c, every, labelled=False) for c in cases], channel_names=task.channels)
    return Patients(
        {c.name: [_volume(task, c, channel) for channel in every] for c in cases},
        {c.name: c.fold for c in cases},
    )


def _volume(task: Task, case: CasePaths, channel: int) -> Item:
    item = task.item(case, [channel], labelled=False)
    if isinstance(item["image"], list):
        item["image"] = item["image"][0]
    name = task.channels[channel]
    return {**item, "case": f"{case.name}_{name}", "modality": name}


def _folder_volumes(root: Path, files: list[Path], check: Callable[..., set[int]]) -> Patients:
    counts = {path: open_image(str(path)).num_channels for path in files}
    for count in sorted(set(counts.values())):  # check_cases takes files of one kind at a time
        same = [case_item(case_name(p), p, range(count)) for p in files if counts[p] == count]
        check(same, channel_names=[f"channel {i}" for i in range(count)])
    series = [path.name for path, count in counts.items() if count > MOST_CHANNELS]
    if series:
        logger.info(
            "%d files hold a series of more than %d volumes; the first of each is taken: %s",
            *(len(series), MOST_CHANNELS, listed(series)),
        )
    patients: dict[str, list[Item]] = defaultdict(list)
    names_of_channels = every_alias()
    for path, count in counts.items():
        parts = path.relative_to(root).parts
        name = case_name("_".join(parts))
        taken = range(count if count <= MOST_CHANNELS else 1)
        names = [f"{name}_{channel}" for channel in taken] if count > 1 else [name]
        patient, modality = split_name(name, names_of_channels)
        own = patient if len(parts) == 1 and modality else parts[0]
        patients[own] += [case_item(n, path, [i]) for i, n in enumerate(names)]
    return Patients(dict(patients), dict.fromkeys(patients))
