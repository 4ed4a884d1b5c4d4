"""Checks of every case before training or inference starts, so that no run dies on a bad file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from tqdm import tqdm

from lora_ext.files import whole_file
from lora_ext.images.image_file import ImageFile, case_name, check_same_grid
from lora_ext.images.reader import files_of, open_image

logger = logging.getLogger(__name__)

Item = Mapping[str, Any]

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

    Of several processes in one run, rank 0 reads; the others wait and take its record.

    Args:
        items: case items; `image` one file with all channels, or one file (or folder of a DICOM
            series) per channel.
        channel_names: names of the channels that a case's files hold, in their order.
        label_values: the values a label map may hold, background included; None for any integer.
        record: JSON file that remembers the cases that passed, by path, size and time of change of
            their files and by what was checked; a changed file is read again. None reads all.

    Raises:
        ValueError: a missing or damaged file, another number of channels, a non-finite voxel, an
            image and a label (or two channels' files) of different shape or affine, or a label
            value that is not allowed.
    """
    values = None if label_values is None else sorted(set(label_values))
    with idist.one_rank_first():
        _check_unrecorded(items, tuple(channel_names), values, record)


def _check_unrecorded(
    items: Iterable[Item],
    names: tuple[str, ...],
    values: list[int] | None,
    record: str | os.PathLike[str] | None,
) -> None:
    passed = _read_record(record)
    pending: dict[str, Item] = {}
    for item in sorted(items, key=_name):
        for path in _parts(item):
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


def _parts(item: Item) -> list[str]:
    """Every file on disk: a header's data file and a series' slices are files of their own."""
    return [part for path in _files(item) for part in files_of(path)]


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
    held = [names] if len(images) == 1 else [(name,) for name in names]
    for image, channels in zip(images, held, strict=True):
        _check_channels(image, channels)
        check_same_grid(images[0], image)
    if label is not None:
        _check_channels(label, ("label",))
        check_same_grid(images[0], label)
    for image, channels in zip(images, held, strict=True):
        _check_finite(image, channels)
    if label is not None:
        _check_labels(label, values)


def _check_channels(image: ImageFile, names: tuple[str, ...]) -> None:
    if len(image.shape) not in (3, 4):
        raise ValueError(
            f"{image.path}: found the shape {image.shape}; "
            f"allowed are 3 dimensions, or 4 with the channels last"
        )
    if image.num_channels != len(names):
        raise ValueError(
            f"{image.path}: found {image.num_channels} channels; "
            f"allowed are {len(names)} ({', '.join(names)})"
        )


def _voxels(image: ImageFile) -> np.ndarray:
    voxels = image.read()
    if voxels.dtype.kind not in "biuf":
        raise ValueError(
            f"{image.path}: found voxels of type {voxels.dtype}; allowed are real numbers"
        )
    return voxels


def _check_finite(image: ImageFile, names: tuple[str, ...]) -> None:
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
    raise ValueError(f"{image.path}: found non-finite voxels, {found}; all must be finite")


def _check_labels(label: ImageFile, values: list[int] | None) -> None:
    found = np.unique(_voxels(label))
    wrong = found[found != np.round(found)] if values is None else np.setdiff1d(found, values)
    if wrong.size:
        listed = ", ".join(f"{value:g}" for value in wrong[:8].astype(float))
        more = f" and {wrong.size - 8} more" if wrong.size > 8 else ""
        allowed = "integers" if values is None else ", ".join(map(str, values))
        raise ValueError(
            f"{label.path}: found the label values {listed}{more}; allowed are {allowed}"
        )


def _signature(item: Item, names: tuple[str, ...], values: list[int] | None) -> str:
    stats = [(path, os.stat(path)) for path in _parts(item)]
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
