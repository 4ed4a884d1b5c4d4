"""Single-channel volumes to pre-train on: any folder of images, or every channel of a task."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from lora_ext.data.checks import check_cases
from lora_ext.data.folds import split_fold
from lora_ext.data.task import Item, case_item, read_task
from lora_ext.images.image_file import ENDINGS, case_name, ending
from lora_ext.images.reader import open_image

Patients = dict[str, list[Item]]  # volumes by patient


def fold_volumes(
    dataset_dir: str | os.PathLike[str],
    *,
    fold: int,
    num_folds: int,
    split_seed: int,
    record: str | os.PathLike[str] | None = None,
) -> dict[str, list[Item]]:
    """List the volumes to train on and the held-out volumes of one fold.

    Every image channel is a volume of its own. All volumes of one patient are on the same side of
    the split. The patients of a Decathlon task are its labelled cases, split exactly as
    `fold_cases` splits them: an encoder that was pre-trained with the same fold, number of folds
    and split_seed has never seen the segmentation's validation cases. Another folder is searched
    with its sub-folders; tasks in it are split each on their own, and of the other files a patient
    is a first-level sub-folder, or a file that lies in none. Every file is checked before the
    items are returned, see `check_cases`.

    Args:
        dataset_dir: a task folder, or any folder with NIfTI, NRRD or MetaImage files or tasks.
        fold: which fold is held out, 0 .. num_folds - 1.
        num_folds: number of folds.
        split_seed: seed of the split.
        record: JSON file that remembers which files passed the checks.

    Returns:
        Volume items (``case``, ``image``, ``channels`` of one channel) under ``training`` and
        ``validation``, sorted by patient.

    Raises:
        ValueError: a bad dataset.json, fold or file, a folder without images, or fewer
            patients than folds.
    """
    volumes: dict[str, list[Item]] = {"training": [], "validation": []}
    for source, patients in _sources(dataset_dir, record).items():
        if len(patients) < num_folds:
            raise ValueError(
                f"{source}: expected at least as many patients as num_folds, {num_folds}, "
                f"got {len(patients)} ({', '.join(sorted(patients)[:4])})"
            )
        sides = split_fold(patients, fold, num_folds, split_seed)
        for side, names in zip(volumes, sides, strict=True):
            volumes[side] += [item for name in names for item in patients[name]]
    return volumes


def all_volumes(
    dataset_dir: str | os.PathLike[str], *, record: str | os.PathLike[str] | None = None
) -> list[Item]:
    """List every volume that `fold_volumes` finds, unsplit.

    Args:
        dataset_dir: as for `fold_volumes`.
        record: JSON file that remembers which files passed the checks.

    Returns:
        Volume items, sorted by patient.

    Raises:
        ValueError: a bad dataset.json or file, or a folder without images.
    """
    sources = _sources(dataset_dir, record).values()
    return [item for patients in sources for name in sorted(patients) for item in patients[name]]


def _sources(
    dataset_dir: str | os.PathLike[str], record: str | os.PathLike[str] | None
) -> dict[Path, Patients]:
    """Find the tasks at or below a folder and its other files, each with its patients' volumes."""
    root = Path(dataset_dir).expanduser().absolute()
    paths = sorted(root.rglob("*"))
    tasks = sorted(path.parent for path in paths if path.name == "dataset.json")
    sources = {task: _task_volumes(task, record) for task in tasks}
    files = [path for path in paths if ending(path) and path.is_file()]
    loose = [path for path in files if not set(path.parents) & set(tasks)]
    if loose:
        sources[root] = _folder_volumes(root, loose, record)
    if not sources:
        raise ValueError(
            f"{root}: found no image; dataset_dir must be a folder with files that end in "
            f"{', '.join(ENDINGS)}, or a Decathlon task folder"
        )
    return sources


def _task_volumes(root: Path, record: str | os.PathLike[str] | None) -> Patients:
    task = read_task(root, on_disk=("training",))
    whole = [case_item(c.name, c.image, range(len(task.channels))) for c in task.training]
    check_cases(whole, channel_names=task.channels, record=record)
    return {
        c.name: [
            case_item(f"{c.name}_{name}", c.image, [i]) for i, name in enumerate(task.channels)
        ]
        for c in task.training
    }


def _folder_volumes(
    root: Path, files: list[Path], record: str | os.PathLike[str] | None
) -> Patients:
    counts = {path: open_image(str(path)).num_channels for path in files}
    for count in sorted(set(counts.values())):  # check_cases takes files of one kind at a time
        same = [case_item(case_name(p), p, range(count)) for p in files if counts[p] == count]
        check_cases(same, channel_names=[f"channel {i}" for i in range(count)], record=record)
    patients: Patients = defaultdict(list)
    for path, count in counts.items():
        parts = path.relative_to(root).parts
        name = case_name("_".join(parts))
        names = [f"{name}_{channel}" for channel in range(count)] if count > 1 else [name]
        patients[parts[0]] += [case_item(n, path, [i]) for i, n in enumerate(names)]
    return dict(patients)
