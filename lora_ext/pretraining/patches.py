"""Patches of a volume as rows of voxels, and their own mean and contrast."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from lora_ext.encoder import PATCH_SIZE

ROWS = "b c (h p1) (w p2) (d p3) -> b (h w d) (p1 p2 p3 c)"
SIDES = {"p1": PATCH_SIZE, "p2": PATCH_SIZE, "p3": PATCH_SIZE}
LEAST_VARIANCE = 1e-6  # He et al. 2022; keeps patches of air at zero


def to_patches(volume: Tensor) -> Tensor:
    """Cut volumes into patches, in the order of the encoder's tokens.

    Args:
        volume: shape (B, 1, H, W, D), sides in whole patches of 16 voxels.

    Returns:
        Patches of shape (B, N, 4096).
    """
    return rearrange(volume, ROWS, **SIDES)


def from_patches(patches: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Put patches back together: the inverse of `to_patches`.

    Args:
        patches: shape (B, N, 4096).
        size: H, W, D of the volume in voxels.

    Returns:
        Volumes of shape (B, 1, H, W, D).
    """
    before, after = ROWS.split(" -> ")
    grid = {axis: side // PATCH_SIZE for axis, side in zip("hwd", size, strict=True)}
    return rearrange(patches, f"{after} -> {before}", **SIDES, **grid)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every patch, each of shape (B, N, 1)."""
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return mean, (variance + LEAST_VARIANCE).sqrt()
