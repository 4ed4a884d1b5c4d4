"""Position embeddings of a ViT, resampled to another grid of patches."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from lora_ext.networks.encoder import PATCH_SIZE

Resampling = tuple[list[int], list[int]]  # patches along each axis, from and to


def fit_positions(
    positions: Tensor,
    grid: Sequence[int],
    source_img_size: Sequence[int] | None,
    path: str | os.PathLike[str],
    leading: Sequence[int] = (0, 1),
) -> tuple[Tensor, Tensor, Resampling | None]:
    """Take the positions of other tokens apart, and resample those of the patches, trilinearly.

    Args:
        positions: shape (1, L + N, hidden): L for tokens before the patches', N for the patches.
        grid: wanted number of patches along each axis.
        source_img_size: input size in voxels that they were made for; by default `grid` is assumed
            where the number fits, and else a cube.
        path: the file they come from, for messages.
        leading: what L may be, the likeliest first.

    Returns:
        The first L positions, those of the patches (1, patches of `grid`, hidden), and the two
        grids where they differ.

    Raises:
        ValueError: if their shape is another, or their number fits no grid.
    """
    if positions.ndim != 3 or len(positions) != 1:
        raise ValueError(
            f"{path}: position embeddings have shape {list(positions.shape)}; expected [1, patches,"
            " hidden size]: save them so"
        )
    grid, count = list(grid), positions.shape[1]
    found = _source_grid(count, grid, source_img_size, leading)
    if found is None:
        reason = (
            f"fit neither this network's {grid} patches nor a cube; give source_img_size, the "
            "input size in voxels that they were made for"
            if source_img_size is None
            else f"do not fit the {_patches(source_img_size)} patches of source_img_size "
            f"{list(source_img_size)}"
        )
        raise ValueError(f"{path}: {count} position embeddings {reason}")
    first, source = found
    others, positions = positions[:, :first], positions[:, first:]
    if source == grid:
        return others, positions, None
    volume = positions.transpose(1, 2).reshape(1, -1, *source).float()
    volume = functional.interpolate(volume, size=grid, mode="trilinear", align_corners=False)
    return others, volume.flatten(2).transpose(1, 2), (source, grid)


def _source_grid(
    count: int, grid: list[int], source_img_size: Sequence[int] | None, leading: Sequence[int]
) -> tuple[int, list[int]] | None:
    """How many of `count` positions lead, and the grid of the others; ``None`` if none fits."""
    for first in leading:
        side = round(max(count - first, 0) ** (1 / 3))
        grids = [grid, [side] * 3] if source_img_size is None else [_patches(source_img_size)]
        for candidate in grids:
            if math.prod(candidate) == count - first > 0:
                return first, candidate
    return None


def _patches(img_size: Sequence[int]) -> list[int]:
    return [size // PATCH_SIZE for size in img_size]
