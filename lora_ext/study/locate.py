"""Where a study's data sets and bundles lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_ext.bundles.generator import DATASETS, bundle_facts, write_bundles
from lora_ext.data.task import read_task

# Task folders by data set, in the order of preference.
TASK_FOLDERS = {
    "brats": ("Task01_BrainTumour", "phantom_brats", "brats"),
    "prostatex": ("Task05_Prostate", "phantom_prostatex", "prostatex"),
}


def find_tasks(data_dir: Path, asked: Sequence[str]) -> dict[str, Path]:
    """Find the task folder of each data set.

    Args:
        data_dir: one task folder (``dataset.json`` in it), or a folder that holds task folders of
            the names in `TASK_FOLDERS`.
        asked: the data sets that must be found; empty for whichever are there.

    Returns:
        Task folders by data set.

    Raises:
        ValueError: if the folder does not exist, a data set is not found, or one task folder is
            given for bundles of two data sets.
    """
    if not data_dir.is_dir():
        raise ValueError(f"{data_dir}: found no such folder; data_dir must be an existing folder")
    if (data_dir / "dataset.json").is_file():
        return {_data_set_of(data_dir, asked): data_dir}
    found = {
        dataset: next((f for f in folders if (f / "dataset.json").is_file()), None)
        for dataset, folders in _candidates(data_dir).items()
    }
    tasks = {dataset: folder for dataset, folder in found.items() if folder is not None}
    missing = [dataset for dataset in asked or DATASETS if dataset not in tasks]
    if missing and (asked or not tasks):
        names = ", ".join(name for dataset in missing for name in TASK_FOLDERS[dataset])
        raise ValueError(
            f"{data_dir}: found no dataset.json, neither in it nor in any of {names}; give a task "
            f"folder or a folder that holds one for {' and '.join(missing)}"
        )
    return tasks


def find_bundles(names: Sequence[str], out: Path) -> Path:
    """Find the folder of bundles: ``bundles/`` here if it has them all, else written below `out`.

    Args:
        names: the bundles that are needed.
        out: the study's folder.

    Returns:
        The folder that holds the bundles.
    """
    here = Path("bundles")
    if all((here / name / "configs" / "train.json").is_file() for name in names):
        return here
    write_bundles(out / "bundles")
    return out / "bundles"


def _candidates(data_dir: Path) -> dict[str, list[Path]]:
    return {dataset: [data_dir / name for name in TASK_FOLDERS[dataset]] for dataset in DATASETS}


def _data_set_of(task: Path, asked: Sequence[str]) -> str:
    """The data set that one task folder is for: the one asked, else by its channels' names."""
    if len(asked) > 1:
        raise ValueError(
            f"{task}: is one task folder, but the bundles asked for are of {' and '.join(asked)}; "
            "give the folder that holds both task folders, or bundles of one data set"
        )
    if asked:
        return asked[0]
    channels = {name.lower() for name in read_task(task, on_disk=()).channels}
    known = {
        facts["dataset"]: facts["modalities"]
        for facts in bundle_facts().values()
        if facts["dataset"] in DATASETS
    }
    fitting = [d for d, names in known.items() if channels & {name.lower() for name in names}]
    if len(fitting) != 1:
        shown = "; ".join(f"{d}: {', '.join(names)}" for d, names in known.items())
        raise ValueError(
            f"{task}: its channels {', '.join(sorted(channels))} do not tell the data set "
            f"({shown}); name the bundles with --bundles"
        )
    return fitting[0]
