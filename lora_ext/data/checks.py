"""Checks of every case before training or inference starts, so that no run dies on a bad file."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import ignite.distributed as idist
import numpy as np
from monai.utils import ensure_tuple
from tqdm import tqdm

from lora_ext.files import whole_file
from lora_ext.images.image_file import RESAMPLE, ImageFile, check_same_grid, two_places
from lora_ext.images.limits import (
    available_memory,
    cached_bytes,
    check_resampled,
    gigabytes,
    resampled_shape,
    voxel_size,
)
from lora_ext.images.listing import counted
from lora_ext.images.reader import files_of, open_image

logger = logging.getLogger(__name__)

_QUIET = 4  # so few cases are read without a progress bar
THREADS = min(8, os.cpu_count() or 1)  # gzip lets go of the interpreter lock


class Passed(TypedDict):
    """What the record keeps of a case: its first image's header, and what its label map held."""

    image: str
    shape: Sequence[int]
    voxel: Sequence[float]  # mm
    label: str | None
    labels: Sequence[int]  # the values in the label map, without 0
    segments: Sequence[tuple[int, str]]  # named values of a segmentation from 3D Slicer


@dataclass(frozen=True)
class _Rules:
    """What a case's files may be."""

    channels: tuple[str, ...]  # in one file
    modalities: tuple[str, ...]  # of the files, one each
    values: list[int] | None  # of label maps; None for any integer
    names: Mapping[int, str]  # of these values, where they have any
    resample_channels: bool
    nan_to_num: bool


def check_cases(
    items: Iterable[Mapping[str, Any]],
    *,
    channel_names: Sequence[str],
    modalities: Sequence[str] | None = None,
    label_values: Iterable[int] | None = None,
    spacing: Sequence[float] | None = None,
    record: str | os.PathLike[str] | None = None,
    resample_channels: bool = False,
    nan_to_num: bool = False,
    cache_rate: float = 0.0,
) -> set[int]:
    """Read every file of every case, and stop at the first bad case by name.

    Of several processes in one run, rank 0 reads; the others wait and take its record.

    Args:
        items: case items; `image` is one file with all channels, or one file (or folder of a DICOM
            series) per channel.
        channel_names: names of the channels that a case's file holds, in their order.
        modalities: names of a case's files where `image` is a list; by default `channel_names`.
        label_values: the values a label map may hold, background included, or a mapping from these
            to their names; None for any integer.
        spacing: the voxel size in mm that the images will be resampled to; None where they are not.
        record: JSON file that remembers the cases that passed, by path, size and time of change of
            their files and by what was checked; a changed file is read again. None reads all.
        resample_channels: whether a case's files may lie on different grids, see `VolumeReader`.
        nan_to_num: whether voxels may be not finite, see `VolumeReader`.
        cache_rate: the share of the cases that will stay in memory; what that takes is logged.

    Returns:
        The values that the label maps hold, without 0.

    Raises:
        ValueError: a missing or damaged file, another number of channels, a non-finite voxel, an
            image and a label (or two channels' files) of different shape or place, a label value
            that is not allowed, nothing labelled in any case, or an image too large for the memory
            at `spacing`.
    """
    rules = _Rules(
        tuple(channel_names),
        tuple(channel_names if modalities is None else modalities),
        None if label_values is None else sorted({*label_values}),
        label_values if isinstance(label_values, Mapping) else {},
        resample_channels,
        nan_to_num,
    )
    with idist.one_rank_first():
        passed = _read_record(record)
        keys = {
            _record_key(item, rules): item for item in sorted(items, key=lambda item: item["case"])
        }
        pending = {key: item for key, item in keys.items() if key not in passed}
        try:
            for key, found in _check_all(pending, rules):
                passed[key] = found
        finally:
            if pending:
                _write_record(record, passed)
        cases = [passed[key] for key in keys]
        _check_together(cases, spacing, rules)
        if cache_rate > 0 and spacing is not None:
            _tell_cache(cases, spacing, len(rules.modalities), cache_rate)
    return {value for key in keys for value in passed[key]["labels"]}


def _check_all(
    pending: dict[str, Mapping[str, Any]], rules: _Rules
) -> Iterator[tuple[str, Passed]]:
    if not pending:
        return
    logger.info("reading %d cases to check them", len(pending))
    hidden = len(pending) <= _QUIET or not sys.stderr.isatty()
    with ThreadPoolExecutor(THREADS) as pool:
        checks = pool.map(lambda item: _check_case(item, rules), pending.values())
        bar = tqdm(checks, "checking cases", len(pending), unit="case", disable=hidden)
        yield from zip(pending, bar, strict=True)


def _tell_cache(
    cases: list[Passed], spacing: Sequence[float], channels: int, cache_rate: float
) -> None:
    """Say, before it is taken, how much memory the cache takes at most: air is cropped off."""
    sizes = [math.prod(resampled_shape(c["shape"], c["voxel"], spacing)) for c in cases]
    needed, free = cached_bytes(cache_rate * sum(sizes), channels), available_memory()
    told = logger.warning if needed > free else logger.info
    hint = "; a lower --cache_rate takes less" if needed > free else ""
    told(
        "--cache_rate %g keeps up to %s of images in memory, of %s that are free%s",
        cache_rate, gigabytes(needed), gigabytes(free), hint,
    )  # fmt: skip


def _check_together(cases: list[Passed], spacing: Sequence[float] | None, rules: _Rules) -> None:
    """Check what the cases' headers and labels amount to."""
    num_channels = len(rules.channels)
    for case in cases if spacing is not None else ():
        check_resampled(case["image"], case["shape"], case["voxel"], spacing, num_channels)  # type: ignore[arg-type]
    _check_segments(cases, rules.names)
    labelled = [case for case in cases if case["label"]]
    if labelled and not any(case["labels"] for case in labelled):
        raise ValueError(
            f"{labelled[0]['label']}: expected labels other than 0 in at least one case, got none "
            f"in {counted(len(labelled), 'label map')}; nothing can be learnt or measured from them"
        )


def _check_segments(cases: list[Passed], names: Mapping[int, str]) -> None:
    """Check that segments of one name have one value: 3D Slicer numbers them as they were drawn."""
    values = {name.lower(): value for value, name in names.items()}
    for case in cases:
        for value, name in case["segments"]:
            expected = values.setdefault(name.lower(), value)
            if expected != value:
                raise ValueError(
                    f"{case['label']}: expected the label value {expected} for the segment {name}, "
                    f"as in the other cases or in the data set's labels, got {value}; export it as "
                    "a label map with one colour table for all cases"
                )


def _record_key(item: Mapping[str, Any], rules: _Rules) -> str:
    """Return a digest of what is checked: the case's files, their state, and what is allowed."""
    labelled, several = "label" in item, _several(item)
    images = [*ensure_tuple(item["image"]), *([item["label"]] if labelled else [])]
    files = []
    for path in (part for image in images for part in files_of(os.fspath(image))):
        if not os.path.isfile(path):
            raise ValueError(f"{path}: found no such file; case {item['case']} needs it")
        state = os.stat(path)
        files.append((path, state.st_size, state.st_mtime_ns))
    count = len(rules.modalities if several else rules.channels)
    mended = [rules.resample_channels, rules.nan_to_num]
    checked = [files, labelled, several, count, rules.values, mended]
    return hashlib.sha256(json.dumps(checked).encode()).hexdigest()


def _several(item: Mapping[str, Any]) -> bool:
    """Whether a case has a file per channel."""
    return isinstance(item["image"], (list, tuple))


def _check_case(item: Mapping[str, Any], rules: _Rules) -> Passed:
    """Check one case and return what is remembered of it."""
    images = [open_image(os.fspath(path)) for path in ensure_tuple(item["image"])]
    held = [rules.channels]
    if _several(item):
        held = [(name,) for name in rules.modalities]
        if len(images) != len(held):
            raise ValueError(
                f"{images[0].path}: expected {len(held)} files ({', '.join(rules.modalities)}) "
                f"for case {item['case']}, got {len(images)}"
            )
    for image, channels in zip(images, held, strict=True):
        check_channels(image, channels)
        if not rules.resample_channels:
            check_same_grid(images[0], image, RESAMPLE)
        if remark := two_places(image):
            logger.warning(remark)
        if not rules.nan_to_num:
            check_finite(image, image.read(), channels)
    label = open_image(os.fspath(item["label"])) if "label" in item else None
    return {
        "image": images[0].path,
        "shape": images[0].shape[:3],
        "voxel": voxel_size(images[0].affine),
        "label": label.path if label is not None else None,
        "segments": list((label.segments or {}).items()) if label is not None else [],
        "labels": [] if label is None else _check_label(label, images[0], rules.values),
    }


def _check_label(label: ImageFile, image: ImageFile, values: list[int] | None) -> list[int]:
    """Check a label map, and list its values without 0."""
    check_channels(label, ("label",))
    if label.segments is None:
        check_same_grid(image, label)
    if remark := two_places(label):
        logger.warning(remark)
    return check_labels(label, label.read(), values)


def check_channels(image: ImageFile, names: Sequence[str]) -> None:
    """Check that a file has as many channels as there are names.

    Args:
        image: the file.
        names: the channels' names.

    Raises:
        ValueError: otherwise.
    """
    if image.num_channels != len(names):
        raise ValueError(
            f"{image.path}: expected {counted(len(names), 'channel')} ({', '.join(names)}), "
            f"got {image.num_channels}"
        )


def check_finite(image: ImageFile, voxels: np.ndarray, names: Sequence[str]) -> None:
    """Check that all voxels are numbers.

    Args:
        image: the file.
        voxels: what it holds.
        names: the channels' names.

    Raises:
        ValueError: otherwise.
    """
    if voxels.dtype.kind != "f" or np.isfinite(voxels).all():
        return
    counts = (~np.isfinite(voxels)).reshape(*image.shape[:3], -1).sum(axis=(0, 1, 2))
    got = ", ".join(
        f"{count} in channel {i} ({name})"
        for i, (count, name) in enumerate(zip(counts, names, strict=True))
        if count
    )
    raise ValueError(
        f"{image.path}: expected finite voxels, got non-finite ones, {got}; where they are "
        "background, pass --nan_to_num True to read them as 0"
    )


def check_labels(label: ImageFile, voxels: np.ndarray, values: Sequence[int] | None) -> list[int]:
    """Check the values of a label map.

    Args:
        label: the file.
        voxels: what it holds.
        values: the values that are allowed; None for any integer.

    Returns:
        The values, without 0.

    Raises:
        ValueError: another value.
    """
    found, counts = np.unique(voxels, return_counts=True)
    wrong = found != np.round(found) if values is None else ~np.isin(found, values)
    if wrong.any():
        listed = [
            f"{str(value).removesuffix('.0')} in {counted(count, 'voxel')}"
            for value, count in zip(found[wrong][:8], counts[wrong], strict=False)
        ]
        more = f" and {wrong.sum() - 8} more values" if wrong.sum() > 8 else ""
        allowed = "an integer" if values is None else f"one of {', '.join(map(str, values))}"
        raise ValueError(
            f"{label.path}: expected every label to be {allowed}, got {', '.join(listed)}{more}"
        )
    return [int(value) for value in found if value]


def _read_record(record: str | os.PathLike[str] | None) -> dict[str, Passed]:
    try:
        passed = json.loads(Path(record).read_text(encoding="utf-8"))["passed"] if record else {}
        return {
            key: case
            for key, case in passed.items()
            if case.keys() == Passed.__annotations__.keys()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # no record yet, or a damaged one: every case is read again


def _write_record(record: str | os.PathLike[str] | None, passed: dict[str, Passed]) -> None:
    if not record:
        return
    try:
        with whole_file(record) as draft:
            draft.write_text(json.dumps({"passed": passed}, indent=1), encoding="utf-8")
    except (OSError, ValueError) as error:
        logger.warning("%s: the checked cases could not be recorded (%s)", record, error)
