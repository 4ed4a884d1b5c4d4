"""Medical Segmentation Decathlon tasks from the network: resumed, checked, extracted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from lora_ext.data.archives import check_md5, extract_folder
from lora_ext.data.fetch import WAITS, fetch
from lora_ext.data.task import read_task

TASKS = {"brats": "Task01_BrainTumour", "prostatex": "Task05_Prostate"}


def download_task(
    task: str,
    data_dir: str | Path,
    *,
    url: str | None = None,
    keep_archive: bool = False,
    waits: Sequence[float] = WAITS,
) -> Path:
    """Download and extract a task of the Medical Segmentation Decathlon (Antonelli et al. 2022).

    Addresses and checksums are those of `monai.apps.DecathlonDataset`. A task that is there and
    complete is left as it is, without a request. A broken download continues where it stopped; an
    archive that lies in `data_dir` already is checked and used.

    Args:
        task: brats (Task01_BrainTumour) or prostatex (Task05_Prostate).
        data_dir: folder to write the task's folder to; about twice the archive's size is needed.
        url: address of the archive in place of MONAI's; the checksum is MONAI's all the same.
        keep_archive: keep the archive after the extraction.
        waits: seconds to wait before each new try after a dropped connection.

    Returns:
        The task's folder, absolute.

    Raises:
        ValueError: an unknown task or address, a checksum that differs, an unsafe archive, a disk
            too small, or a folder of the task's name that is no complete task.
        ConnectionError: the connection dropped more often than `waits` allows.
    """
    if task not in TASKS:
        raise ValueError(f"task: found {task!r}; allowed are {', '.join(TASKS)}")
    folder = Path(data_dir).expanduser().absolute() / TASKS[task]
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        return _complete(folder)
    url, md5 = _source(TASKS[task], url)
    folder.parent.mkdir(parents=True, exist_ok=True)
    archive = folder.with_name(f"{folder.name}.tar")
    if archive.is_file():
        check_md5(archive, md5, str(archive))
    else:
        fetch(url, archive, md5, waits=waits)
    extract_folder(archive, folder, check=read_task)
    if not keep_archive:
        archive.unlink()
    return folder


def next_command(task: str, folder: Path) -> str:
    """The command that trains on a downloaded task, from the repository root.

    Args:
        task: brats or prostatex.
        folder: the task's folder.

    Returns:
        A shell command line.
    """
    config = f"bundles/{task}_lora32/configs/train.json"
    return (
        f"python -m monai.bundle run training --config_file {config} "
        f"--dataset_dir {shlex.quote(str(folder))}"
    )


def _source(folder_name: str, url: str | None) -> tuple[str, str]:
    from monai.apps.datasets import DecathlonDataset  # takes seconds, and few calls need it

    address = DecathlonDataset.resource[folder_name] if url is None else url
    if not re.fullmatch(r"https?://[^\s/]\S*", str(address)):
        raise ValueError(f"url: found {address!r}; allowed is an http:// or https:// address")
    return address, DecathlonDataset.md5[folder_name]


def _complete(folder: Path) -> Path:
    try:
        read_task(folder)
    except ValueError as error:
        raise ValueError(
            f"{folder}: found a folder that is no complete task ({error}); "
            "remove or rename it to download the task"
        ) from error
    return folder
