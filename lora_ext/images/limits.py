"""What an image may claim: its shape, its place, its size in memory, and the range of its voxels.

Headers are believed by every library, so that a wrong one ends in an empty segmentation or takes
the machine's memory. Everything here but the voxels' range is read from the header.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from lora_ext.images.image_file import ImageFile, damaged
from lora_ext.images.listing import counted

FINEST, COARSEST = 0.01, 50.0  # mm; finer is microscopy, coarser than any scanner's slices
WHOLE = 1e-3  # so close to whole numbers are those of a label map after a scale factor

_FLAT = 1e-3  # of the box that the axes' lengths make; less volume than this is a plane
_PACKED = 1032  # times; no deflate stream holds more than this of its own length
_RESAMPLED = 48  # bytes a voxel for MONAI's grid, as measured, and 8 more for each channel
_LOADED = 8  # bytes a voxel: as the file has it, and as float32
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def check_header(image: ImageFile, stored: int) -> None:
    """Check what a header claims, before any voxel is read.

    Args:
        image: the image.
        stored: bytes of its files.

    Raises:
        ValueError: no volume, more voxels than the files or the memory can hold, an affine that is
            not finite or has no inverse, or voxels outside `FINEST` .. `COARSEST`.
    """
    shape, path = image.shape, image.path
    if len(shape) not in (3, 4):
        raise ValueError(
            f"{path}: expected 3 dimensions, or 4 with the channels last, got the shape {shape}"
        )
    if min(shape) < 1 or sum(size > 1 for size in shape[:3]) < 2:
        raise ValueError(f"{path}: expected a volume, got the shape {shape}")
    _check_affine(image)
    voxels = math.prod(shape)
    if voxels > _PACKED * stored:
        claim = f"its header claims {voxels} voxels, but its files have {stored} bytes"
        raise damaged(path, ValueError(claim))
    needed, available = _LOADED * voxels, available_memory()
    if needed > available:
        raise ValueError(
            f"{path}: expected an image that fits into memory, {gigabytes(available)}, got the "
            f"shape {shape}, which takes {gigabytes(needed)}; crop or resample it first"
        )


def check_resampled(
    path: str,
    shape: Sequence[int],
    voxel: Sequence[float],
    spacing: Sequence[float],
    channels: int,
) -> None:
    """Check that an image, resampled to the network's spacing, fits into memory.

    Args:
        path: the image, for the error.
        shape: its voxels (H, W, D).
        voxel: its voxel size in mm.
        spacing: the voxel size in mm to resample to; 0 for the image's own.
        channels: number of channels.

    Raises:
        ValueError: it does not fit.
    """
    grid = resampled_shape(shape, voxel, spacing)
    needed = math.prod(grid) * (_RESAMPLED + 8 * channels)
    available = available_memory()
    if needed > available:
        raise ValueError(
            f"{path}: expected an image that fits into memory, {gigabytes(available)}, at the "
            f"spacing {_by(spacing)} mm, got {_by(shape)} voxels of {_by(voxel)} mm, which become "
            f"{_by(grid)} and take {gigabytes(needed)}; pass a larger --spacing"
        )


def resampled_shape(
    shape: Sequence[int], voxel: Sequence[float], spacing: Sequence[float]
) -> list[int]:
    """Return the voxels (H, W, D) that an image has at another voxel size in mm, 0 for its own."""
    sizes = zip(shape, voxel, spacing, strict=True)
    return [max(1, round(n * was / (now or was))) for n, was, now in sizes]


def cached_bytes(voxels: float, channels: int) -> float:
    """Return the bytes of memory of prepared images: channels and label map, float32."""
    return 4 * (channels + 1) * voxels


def readable_voxels(path: str, voxels: np.ndarray) -> np.ndarray:
    """Check the range of voxels, and make whole numbers of those that all but are.

    Label maps stored with a scale factor or as floats come back as 0.9999. Where every voxel is
    that close to a whole number, it is read as that number: no image changes by more than a
    thousandth of its largest value.

    Args:
        path: the image, for the error.
        voxels: of any shape and type.

    Returns:
        The voxels, of the same shape and type.

    Raises:
        ValueError: a finite voxel beyond the range of float32, in which all is computed.
    """
    if voxels.dtype.kind != "f":
        return voxels
    limit = np.finfo(np.float32).max
    if voxels.dtype.itemsize > 4:
        beyond = voxels[np.isfinite(voxels) & (np.abs(voxels) > limit)]
        if beyond.size:
            raise ValueError(
                f"{path}: expected voxels within float32's range, up to {limit:.4g}, got "
                f"{beyond[0]:.6g} in {counted(beyond.size, 'voxel')}; scale the image first"
            )
    sample = voxels.ravel(order="K")[:: max(1, voxels.size // 1000)]
    if not _all_but_whole(sample) or not _all_but_whole(voxels):
        return voxels
    whole = np.round(voxels)
    return whole if np.abs(whole).max() >= 1 else voxels


def available_memory() -> int:
    """Return the bytes of memory that a process may still take; a container's limit counts."""
    known = [sys.maxsize]
    with suppress(AttributeError, OSError, ValueError):  # not on Windows
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):  # "max" where there is no limit
        known.append(int(_CGROUP.read_text(encoding="utf-8")))
    with suppress(OSError):
        told = Path("/proc/meminfo").read_text(encoding="utf-8")
        known += [1024 * int(kb) for kb in re.findall(r"^MemAvailable: +(\d+)", told, re.M)]
    return min(known)


def voxel_size(affine: np.ndarray) -> tuple[float, ...]:
    """Return the lengths in mm of a voxel's three edges."""
    return tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))


def _check_affine(image: ImageFile) -> None:
    path, affine = image.path, image.affine
    if not np.isfinite(affine).all():
        raise ValueError(
            f"{path}: expected a finite affine, got {affine[:3].tolist()}; correct the header"
        )
    size = voxel_size(affine)
    volume = abs(float(np.linalg.det(affine[:3, :3])))
    if volume <= _FLAT * math.prod(size):
        raise ValueError(
            f"{path}: expected an affine of three axes, got {affine[:3].tolist()}, which has no "
            "inverse; correct the header"
        )
    if not all(FINEST <= length <= COARSEST for length in size):
        raise ValueError(
            f"{path}: expected voxels of {FINEST:g} to {COARSEST:g} mm, got {_by(size)} mm; "
            "correct the spacing or the unit in the header"
        )


def _all_but_whole(voxels: np.ndarray) -> bool:
    with np.errstate(invalid="ignore"):  # not finite: no whole number
        return bool((np.abs(voxels - np.round(voxels)) <= WHOLE).all())


def _by(numbers: Sequence[float]) -> str:
    return "x".join(f"{number:.6g}" for number in numbers)


def gigabytes(size: float) -> str:
    """Write a number of bytes for people."""
    return f"{size / 1e9:.4g} GB"
