"""A phantom as a Medical Segmentation Decathlon task on disk: what was asked for, and its files."""

from __future__ import annotations

import gzip
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import nibabel as nib
import numpy as np
from tqdm import tqdm

from lora_ext.phantoms.anatomy import Anatomy, Size
from lora_ext.phantoms.brats import BRATS
from lora_ext.phantoms.prostatex import PROSTATEX

logger = logging.getLogger(__name__)

ANATOMIES = {anatomy.task: anatomy for anatomy in (BRATS, PROSTATEX)}
VERSION = 1  # of the anatomies: another one draws other images for the same seed
SMALLEST_SIDE = 16  # voxels
PHANTOM_FOLDER = "phantom_"  # begins the name of a bundle's default data folder


def write_phantoms(
    task: str,
    out: str | os.PathLike[str],
    cases: int = 24,
    seed: int = 0,
    size: str | Sequence[int] = (128, 128, 48),
    test_cases: int = 2,
) -> Path:
    """Write a synthetic task in the layout of the Medical Segmentation Decathlon.

    Images are 4D .nii.gz, int16, channels last; labels are uint8. A case depends on the task, the
    seed, the size and its number alone: the same call writes the same bytes, and more cases leave
    the first ones as they are. Numbers run on from the training to the test cases. The folder
    appears when it is complete; when it already holds the phantom asked for, nothing is written.
    Several processes may ask for one phantom at once: the first to finish gives the folder.

    Args:
        task: "brats" or "prostatex".
        out: folder to write, new or empty.
        cases: number of training cases, with labels.
        seed: seed of the phantom.
        size: image size in voxels, three integers or a string such as "128,128,48".
        test_cases: number of test cases, without labels.

    Returns:
        The folder written.

    Raises:
        ValueError: an argument is outside what is allowed, or `out` holds anything else.
    """
    if not isinstance(task, str) or task not in ANATOMIES:
        raise ValueError(f"task: expected one of {', '.join(ANATOMIES)}, got {task!r}")
    request = {
        "task": task,
        "cases": check_count("cases", cases, 1),
        "test_cases": check_count("test_cases", test_cases, 0),
        "seed": check_count("seed", seed, 0),
        "size": list(parse_size(size)),
        "version": VERSION,
    }
    # The command line turns a folder named 5 into a number.
    folder = Path(str(out)).expanduser().resolve()
    if is_done(folder, request):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}.", ignore_cleanup_errors=True
    ) as place:
        unfinished = Path(place) / folder.name
        unfinished.mkdir()
        _write_task(unfinished, ANATOMIES[task], request)
        _take_place(unfinished, folder, request)
    return folder


def ensure_phantoms(dataset_dir: str | os.PathLike[str]) -> str:
    """Write the default phantoms if `dataset_dir` is a bundle's default and is not there yet.

    The default ``dataset_dir`` of a bundle is ``data/phantom_<task>``, so that a bundle runs
    without any data. A folder of any other name is left to be found missing. Of several processes
    in one run, rank 0 writes and the others wait.

    Args:
        dataset_dir: the bundle's ``dataset_dir``.

    Returns:
        `dataset_dir`, unchanged.

    Raises:
        ValueError: the folder is named ``phantom_<task>`` for a task that has no phantoms.
    """
    folder = Path(dataset_dir)
    with idist.one_rank_first():
        if folder.name.startswith(PHANTOM_FOLDER) and not folder.exists():
            task = folder.name.removeprefix(PHANTOM_FOLDER)
            logger.info("no data set given: writing 24 %s phantoms to %s", task, folder)
            write_phantoms(task, folder)
    return os.fspath(dataset_dir)


def parse_size(size: str | Sequence[int]) -> Size:
    """Read an image size.

    Args:
        size: three integers, or a string such as "128,128,48".

    Returns:
        Image size in voxels.

    Raises:
        ValueError: the size is not three integers of at least 16.
    """
    parts: Any = size
    if isinstance(size, str):
        words = [word.strip() for word in size.strip("()[] ").split(",")]
        parts = [int(word) if word.isdecimal() else word for word in words]
    is_list = isinstance(parts, (tuple, list)) and len(parts) == 3
    if not is_list or not all(type(side) is int and side >= SMALLEST_SIDE for side in parts):
        raise ValueError(
            f"size: expected three integers of at least {SMALLEST_SIDE}, such as 128,128,48, "
            f"got {size!r}"
        )
    return parts[0], parts[1], parts[2]


def check_count(name: str, value: Any, least: int) -> int:
    """Check an integer argument.

    Args:
        name: name of the argument, for the message.
        value: what was given.
        least: smallest value allowed.

    Returns:
        The value.

    Raises:
        ValueError: the value is no integer or too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    return value


def is_done(folder: Path, request: dict[str, Any]) -> bool:
    """Tell whether a folder already holds the phantom asked for.

    Args:
        folder: where the phantom is to be written.
        request: the arguments of the phantom, as stored under "phantom" in dataset.json.

    Returns:
        True when the folder holds this very phantom, False when it is absent or empty.

    Raises:
        ValueError: the place is a file, or a folder that holds anything else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    expected = f"{folder}: expected a new or an empty folder"
    if not folder.is_dir():
        raise ValueError(f"{expected}, got a file")
    try:
        listing = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        files = [*listing["test"], *(f for pair in listing["training"] for f in pair.values())]
        found = listing["phantom"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{expected}, got one with other files") from error
    if found != request:
        raise ValueError(f"{expected} or a phantom of {request}, got a phantom of {found}")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{expected} or a whole phantom, got one without {missing[0]}")
    return True


def _write_task(folder: Path, anatomy: Anatomy, request: dict[str, Any]) -> None:
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir()
    cases, (x, y, z) = request["cases"], request["size"]
    # BraTS' kind of affine: the first axis to the left, the second to posterior, the third up.
    affine = np.diag([-anatomy.spacing[0], -anatomy.spacing[1], anatomy.spacing[2], 1.0])
    affine[1, 3] = anatomy.spacing[1] * (y - 1)
    numbers = range(1, cases + request["test_cases"] + 1)
    for case in tqdm(numbers, desc=f"{anatomy.task} phantom", unit="case"):
        image, label = anatomy.draw(request["seed"], case, (x, y, z))
        name = _file_name(anatomy, case)
        images = "imagesTr" if case <= cases else "imagesTs"
        _save_nifti(folder / images / name, np.moveaxis(image, 0, -1), affine)
        if case <= cases:
            _save_nifti(folder / "labelsTr" / name, label, affine)
    listing = json.dumps(_dataset_json(anatomy, request), indent=2)
    (folder / "dataset.json").write_text(listing + "\n", encoding="utf-8")


def _dataset_json(anatomy: Anatomy, request: dict[str, Any]) -> dict[str, Any]:
    cases, test_cases = request["cases"], request["test_cases"]
    names = [_file_name(anatomy, case) for case in range(1, cases + test_cases + 1)]
    return {
        "name": f"{anatomy.task} phantom",
        "description": f"Synthetic images ({', '.join(anatomy.channels)}); no patient data",
        "licence": "CC0 1.0",
        "release": f"{VERSION}.0",
        "tensorImageSize": "4D",
        "modality": {str(c): name for c, name in enumerate(anatomy.channels)},
        "labels": {str(value): name for value, name in enumerate(anatomy.labels)},
        "numTraining": cases,
        "numTest": test_cases,
        "training": [
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names[:cases]
        ],
        "test": [f"./imagesTs/{name}" for name in names[cases:]],
        "phantom": request,
    }


def _file_name(anatomy: Anatomy, case: int) -> str:
    return f"{anatomy.task}_{case:04d}.nii.gz"


def _save_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write a .nii.gz whose bytes depend on the voxels and the affine alone."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    # A gzip header holds the time of writing unless told otherwise.
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _take_place(unfinished: Path, folder: Path, request: dict[str, Any]) -> None:
    try:
        if folder.exists():
            folder.rmdir()
        os.replace(unfinished, folder)
    except OSError:  # another process may have been faster
        if not is_done(folder, request):
            raise
