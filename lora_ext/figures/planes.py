"""Which slices of a volume to show, which way up, and in which greys: axial, coronal, sagittal."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    io_orientation,
    ornt_transform,
)


@dataclass(frozen=True)
class Plane:
    """One viewing plane of an LPS volume: the axis it cuts and how the slice is shown.

    `origin` is matplotlib's: anterior, or superior, is up. `sides` are the patient's sides at
    the left and right edge of the picture; the patient's right is on the left (radiological).
    """

    name: str
    axis: int
    origin: str
    sides: tuple[str, str]

    def cut(self, volume: np.ndarray, index: int) -> np.ndarray:
        """Return slice `index` of a volume (..., H, W, D) as (..., rows, columns)."""
        return np.swapaxes(np.take(volume, index, axis=volume.ndim - 3 + self.axis), -1, -2)

    def of(self, triple: tuple[float, ...]) -> tuple[float, float]:
        """Pick (rows, columns) from values given along H, W and D, such as the spacing."""
        columns, rows = (value for axis, value in enumerate(triple) if axis != self.axis)
        return rows, columns


PLANES = (
    Plane("axial", 2, "upper", ("R", "L")),
    Plane("coronal", 1, "lower", ("R", "L")),
    Plane("sagittal", 0, "lower", ("A", "P")),
)


def to_lps(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Flip and permute a volume so that its axes run to the patient's left, back and head.

    Args:
        volume: array (C, H, W, D).
        affine: voxel to world (RAS+, mm), 4 x 4; oblique ones go to the nearest axes.

    Returns:
        Array (C, H', W', D').
    """
    turned = apply_orientation(np.moveaxis(volume, 0, -1), _turn(affine))
    return np.moveaxis(turned, -1, 0)


def lps_spacing(affine: np.ndarray) -> tuple[float, ...]:
    """Return the voxel size in mm along the axes that `to_lps` gives.

    Args:
        affine: voxel to world (RAS+, mm), 4 x 4.
    """
    sizes = nib.affines.voxel_sizes(affine)
    order = np.argsort(_turn(affine)[:, 0])
    return tuple(float(sizes[axis]) for axis in order)


def busiest_slices(masks: np.ndarray) -> tuple[int, int, int]:
    """Return per axis the slice with most foreground, the middle where there is none.

    Regions are added up, so that a slice that also cuts the nested, smaller ones is preferred.

    Args:
        masks: binary array (R, H, W, D).

    Returns:
        Indices along H, W and D.
    """
    total = masks.sum(axis=0, dtype=np.int64)
    indices = []
    for axis in range(3):
        profile = total.sum(axis=tuple(other for other in range(3) if other != axis))
        # Of equally full slices the one in their middle, not the region's first.
        fullest = np.flatnonzero(profile == profile.max())
        indices.append(int(fullest[len(fullest) // 2]))
    return indices[0], indices[1], indices[2]


def air_mask(picture: np.ndarray) -> np.ndarray:
    """Find the voxels of a constant border, which is air that the data set or the scanner blanked.

    Args:
        picture: one channel (H, W, D).

    Returns:
        Boolean array (H, W, D), true where a voxel equals the border; false everywhere where the
        eight corners differ, since there is no constant border then.
    """
    border = picture.flat[0]
    corners = picture[np.ix_([0, -1], [0, -1], [0, -1])]
    return (picture == border) & bool((corners == border).all())


def filled_box(filled: np.ndarray) -> tuple[slice, slice, slice]:
    """Return the box that holds everything filled.

    Args:
        filled: boolean array (H, W, D).

    Returns:
        Slices along H, W and D, with a margin of two voxels; everything where nothing is filled.
    """
    if not filled.any():
        return slice(None), slice(None), slice(None)
    box = []
    for axis in range(3):
        used = np.flatnonzero(filled.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(int(used[0]) - 2, 0), int(used[-1]) + 3))
    return box[0], box[1], box[2]


def grey_window(values: np.ndarray) -> tuple[float, float]:
    """Return the grey values to show as black and white, outliers left out.

    Args:
        values: intensities of any shape, without air.

    Returns:
        The 1st and the 99.5th percentile; 0 and 1 where there are no values.
    """
    low, high = np.percentile(values, (1, 99.5)) if values.size else (0.0, 1.0)
    return float(low), float(high)


def _turn(affine: np.ndarray) -> np.ndarray:
    return ornt_transform(io_orientation(affine), axcodes2ornt("LPS"))
