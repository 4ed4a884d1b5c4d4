"""Checks of every case before training or inference starts, so that no run dies on a bad file."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError
from tqdm import tqdm

from lora_ext.data.task import case_name
from lora_ext.files import whole_file

logger = logging.getLogger(__name__)

Item = Mapping[str, Any]

_UNREADABLE = (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError)
_LABEL_AFFINE_ATOL = 1e-3  # mm
_QUIET = 4  # so few cases are read without a progress bar
_THREADS = min(8, os.cpu_count() or 1)  # gzip lets go of the interpreter lock


def check_cases(
    items: Iterable[Item],
    *,
    channel_names: Sequence[str],
    label_values: Iterable[int] | None = None,
    record: str | os.PathLike[str] | None = None,
) -> None:
    """Reads every file of every case, and stops at the first bad case by name.

    Args:
        items: case items; `image` one file with all channels, or one file per channel.
        channel_names: names of the channels that a case's files hold, in their order.
        label_values: the values a label map may hold, background included; None for any integer.
        record: JSON file that remembers the cases that passed, by path, size and time of change of
            their files and by what was checked; a changed file is read again. None reads all.

    Raises:
        ValueError: a missing or damaged file, another number of channels, a non-finite voxel, an
            image and a label (or two channels' files) of different shape or affine, or a label
            value that is not allowed.
    """
    names, passed = tuple(channel_names), _read_record(record)
    values = None if label_values is None else sorted(set(label_values))
    pending: dict[str, Item] = {}
    for item in sorted(items, key=_name):
        for path in _files(item):
            if not os.path.isfile(path):
                raise ValueError(f"{path}: found no such file; case {_name(item)} needs it")
        signature = _signature(item, names, values)
        if signature not in passed:
            pending[signature] = item
    if pending:
        logger.info("reading %d cases to check them", len(pending))
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            checks = pool.map(lambda item: _check_case(item, names, values), pending.values())
            for signature, item in zip(pending, _progress(pending.values()), strict=True):
                next(checks)
                passed[signature] = _files(item)[0]
    finally:
        if pending:
            _write_record(record, passed)


def _name(item: Item) -> str:
    return str(item.get("case") or case_name(_images(item)[0]))


def _images(item: Item) -> list[str]:
    image = item["image"]
    return [os.fspath(image)] if isinstance(image, (str, os.PathLike)) else [*map(os.fspath, image)]


def _files(item: Item) -> list[str]:
    return _images(item) + ([os.fspath(item["label"])] if "label" in item else [])


def _progress(items: Iterable[Item]) -> Iterable[Item]:
    items = list(items)
    hidden = len(items) <= _QUIET or not sys.stderr.isatty()
    return tqdm(items, desc="checking cases", unit="case", file=sys.stderr, disable=hidden)


def _check_case(item: Item, names: tuple[str, ...], values: list[int] | None) -> None:
    images = [open_image(path) for path in _images(item)]
    label = open_image(os.fspath(item["label"])) if "label" in item else None
    if len(images) > 1 and len(images) != len(names):
        raise ValueError(
            f"{_images(item)[0]}: found {len(images)} files for case {_name(item)}; "
            f"allowed are {len(names)} ({', '.join(names)})"
        )
    for image in images:
        _check_channels(image, names if len(images) == 1 else names[:1])
        # As strict as MONAI, which stacks these files only where their affines agree this well.
        _check_same_grid(images[0], image, rtol=1e-5, atol=1e-8)
    if label is not None:
        _check_channels(label, ("label",))
        _check_same_grid(images[0], label, rtol=0, atol=_LABEL_AFFINE_ATOL)
    for i, image in enumerate(images):
        _check_finite(image, names if len(images) == 1 else names[i : i + 1])
    if label is not None:
        _check_labels(label, values)


def open_image(path: str) -> nib.Nifti1Image:
    """Opens an image without reading its voxels.

    Args:
        path: path of a NIfTI file.

    Returns:
        The image, its shape and affine read.

    Raises:
        ValueError: a file that nibabel cannot read as an image.
    """
    try:
        image = nib.load(path)
    except _UNREADABLE as error:
        raise ValueError(_damaged(path, error)) from error
    if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is one too
        raise ValueError(f"{path}: found a {type(image).__name__}; allowed are NIfTI images")
    return image


def _damaged(path: str, error: BaseException) -> str:
    reason = " ".join(str(error).split())
    return f"{path}: found a damaged or truncated file ({reason}); allowed are whole NIfTI files"


def _path(image: nib.Nifti1Image) -> str:
    return str(image.get_filename())


def num_channels(image: nib.Nifti1Image) -> int:
    """Return the number of channels of an image (H, W, D) or (H, W, D, C)."""
    return image.shape[3] if len(image.shape) == 4 else 1


def _check_channels(image: nib.Nifti1Image, names: tuple[str, ...]) -> None:
    if len(image.shape) not in (3, 4):
        raise ValueError(
            f"{_path(image)}: found the shape {image.shape}; "
            f"allowed are 3 dimensions, or 4 with the channels last"
        )
    if num_channels(image) != len(names):
        raise ValueError(
            f"{_path(image)}: found {num_channels(image)} channels; "
            f"allowed are {len(names)} ({', '.join(names)})"
        )


def _check_same_grid(
    reference: nib.Nifti1Image, image: nib.Nifti1Image, *, rtol: float, atol: float
) -> None:
    if image.shape[:3] != reference.shape[:3]:
        raise ValueError(
            f"{_path(image)}: found the shape {image.shape[:3]}; "
            f"allowed is that of {_path(reference)}, {reference.shape[:3]}"
        )
    if not np.allclose(image.affine, reference.affine, rtol=rtol, atol=atol):
        raise ValueError(
            f"{_path(image)}: found the affine {image.affine.tolist()}; "
            f"allowed is that of {_path(reference)}, {reference.affine.tolist()}"
        )


def _voxels(image: nib.Nifti1Image) -> np.ndarray:
    path = _path(image)
    try:
        with gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb") as stream:
            copy = type(image).from_file_map({"image": FileHolder(fileobj=stream)})
            voxels = np.asanyarray(copy.dataobj)
            stream.read()  # nibabel stops before the end, where gzip compares the checksum
    except _UNREADABLE as error:
        raise ValueError(_damaged(path, error)) from error
    if voxels.dtype.kind not in "biuf":
        raise ValueError(f"{path}: found voxels of type {voxels.dtype}; allowed are real numbers")
    return voxels


def _check_finite(image: nib.Nifti1Image, names: tuple[str, ...]) -> None:
    voxels = _voxels(image)
    if voxels.dtype.kind != "f" or np.isfinite(voxels).all():
        return
    bad = ~np.isfinite(voxels.reshape(*image.shape[:3], -1))
    counts = bad.sum(axis=(0, 1, 2)).tolist()
    found = ", ".join(
        f"{count} in channel {i} ({name})"
        for i, (count, name) in enumerate(zip(counts, names, strict=True))
        if count
    )
    raise ValueError(f"{_path(image)}: found non-finite voxels, {found}; all must be finite")


def _check_labels(label: nib.Nifti1Image, values: list[int] | None) -> None:
    found = np.unique(_voxels(label))
    wrong = found[found != np.round(found)] if values is None else np.setdiff1d(found, values)
    if wrong.size:
        listed = ", ".join(f"{value:g}" for value in wrong[:8].astype(float))
        more = f" and {wrong.size - 8} more" if wrong.size > 8 else ""
        allowed = "integers" if values is None else ", ".join(map(str, values))
        raise ValueError(
            f"{_path(label)}: found the label values {listed}{more}; allowed are {allowed}"
        )


def _signature(item: Item, names: tuple[str, ...], values: list[int] | None) -> str:
    stats = [(path, os.stat(path)) for path in _files(item)]
    files = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    checked = [files, "label" in item, len(names), values]
    return hashlib.sha256(json.dumps(checked).encode()).hexdigest()


def _read_record(record: str | os.PathLike[str] | None) -> dict[str, str]:
    try:
        content = json.loads(Path(record).read_text(encoding="utf-8")) if record else {}
    except (OSError, ValueError):
        return {}  # no record yet, or a damaged one: every case is read again
    passed = content.get("passed") if isinstance(content, dict) else None
    return dict(passed) if isinstance(passed, dict) else {}


def _write_record(record: str | os.PathLike[str] | None, passed: dict[str, str]) -> None:
    if not record:
        return
    try:
        with whole_file(record) as draft:
            draft.write_text(json.dumps({"passed": passed}, indent=1), encoding="utf-8")
    except OSError as error:
        logger.warning("%s: the checked cases could not be recorded (%s)", record, error)
