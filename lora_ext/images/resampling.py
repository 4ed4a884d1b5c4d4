"""Voxels brought from one grid onto another, where that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import affine_transform

from lora_ext.images.image_file import ImageFile, same_grid


def onto_grid(
    voxels: np.ndarray,
    affine: np.ndarray,
    shape: Sequence[int],
    target: np.ndarray,
    nearest: bool = False,
) -> np.ndarray:
    """Resample an image onto another grid, by the geometry of both.

    Args:
        voxels: the image, (H, W, D) or (H, W, D, C).
        affine: from its voxel indices to mm, (4, 4).
        shape: the other grid; its first three numbers count.
        target: that grid's affine.
        nearest: whether to take the nearest voxel, as label maps need it, and 0 outside. Otherwise
            it is interpolated linearly, with the image's smallest value outside: the air of a CT,
            and 0 in most other images.

    Returns:
        The voxels on that grid, of `voxels`' type if `nearest`, else float32.
    """
    if voxels.ndim == 4:
        channels = np.moveaxis(voxels, 3, 0)
        return np.stack([onto_grid(c, affine, shape, target, nearest) for c in channels], axis=3)
    between = np.linalg.inv(affine) @ target
    return affine_transform(
        voxels if nearest else voxels.astype(np.float32),
        between[:3, :3],
        between[:3, 3],
        output_shape=tuple(shape[:3]),
        order=0 if nearest else 1,
        mode="grid-constant",  # a rounding error beyond the edge is no voxel outside
        cval=0 if nearest else float(voxels.min()),
    )


def on_image(label: ImageFile, image: ImageFile, voxels: np.ndarray) -> np.ndarray:
    """Place the voxels of a label map on its image's grid; they are that already, or resampled.

    Args:
        label: the label map.
        image: its image.
        voxels: the label map's voxels, (H, W, D).
    """
    if same_grid(image, label):
        return voxels
    return onto_grid(voxels, label.affine, image.shape, image.affine, nearest=True)
