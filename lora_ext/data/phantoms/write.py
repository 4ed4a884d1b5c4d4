"""Writes a phantom as a Medical Segmentation Decathlon task."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from lora_ext.data.phantoms.anatomy import Anatomy, Size
from lora_ext.data.phantoms.brats import BRATS
from lora_ext.data.phantoms.prostatex import PROSTATEX
from lora_ext.data.phantoms.request import check_count, is_done, parse_size

ANATOMIES = {anatomy.task: anatomy for anatomy in (BRATS, PROSTATEX)}
VERSION = 1
"""Version of the anatomies: another one draws other images for the same seed."""


def _lps_affine(size: Size, spacing: Sequence[float]) -> np.ndarray:
    """Return BraTS' kind of affine: first axis to the left, second to posterior, third up."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[1, 3] = spacing[1] * (size[1] - 1)
    return affine


def _save_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write a .nii.gz whose bytes depend on the voxels and the affine alone."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    # A gzip header holds the time of writing unless told otherwise.
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _case_name(anatomy: Anatomy, case: int) -> str:
    return f"{anatomy.task}_{case:04d}.nii.gz"


def _dataset_json(anatomy: Anatomy, request: dict[str, Any]) -> dict[str, Any]:
    cases, test_cases = request["cases"], request["test_cases"]
    training = [_case_name(anatomy, case) for case in range(1, cases + 1)]
    test = [_case_name(anatomy, case) for case in range(cases + 1, cases + test_cases + 1)]
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
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in training
        ],
        "test": [f"./imagesTs/{name}" for name in test],
        "phantom": request,
    }


def _write_task(folder: Path, anatomy: Anatomy, request: dict[str, Any]) -> None:
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir()
    cases, size = request["cases"], tuple(request["size"])
    affine = _lps_affine(size, anatomy.spacing)
    numbers = range(1, cases + request["test_cases"] + 1)
    for case in tqdm(numbers, desc=f"{anatomy.task} phantom", unit="case"):
        image, label = anatomy.draw(request["seed"], case, size)
        name = _case_name(anatomy, case)
        images = "imagesTr" if case <= cases else "imagesTs"
        _save_nifti(folder / images / name, np.moveaxis(image, 0, -1), affine)
        if case <= cases:
            _save_nifti(folder / "labelsTr" / name, label, affine)
    listing = json.dumps(_dataset_json(anatomy, request), indent=2)
    (folder / "dataset.json").write_text(listing + "\n", encoding="utf-8")


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
        raise ValueError(f"task: found {task!r}; allowed are {', '.join(ANATOMIES)}")
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
    place = tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.")
    try:
        unfinished = Path(place) / folder.name
        unfinished.mkdir()
        _write_task(unfinished, ANATOMIES[task], request)
        _take_place(unfinished, folder, request)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return folder


def _take_place(unfinished: Path, folder: Path, request: dict[str, Any]) -> None:
    try:
        if folder.exists():
            folder.rmdir()
        os.replace(unfinished, folder)
    except OSError:  # another process may have been faster
        if not is_done(folder, request):
            raise
