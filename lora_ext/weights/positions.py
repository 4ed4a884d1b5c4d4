"""Position embeddings of a ViT, resampled to another grid of patches."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from lora_ext.encoder import PATCH_SIZE

Resampling = tuple[list[int], list[int]]  # patches along each axis, from and to


def fit_positions(
    positions: Tensor,
    grid: Sequence[int],
    source_img_size: Sequence[int] | None,
    path: str | os.PathLike[str],
) -> tuple[Tensor, Resampling | None]:
    """Drop a class token and resample position embeddings to another grid, trilinearly.

    Args:
        positions: shape (1, N, hidden) or, with a class token's first, (1, N + 1, hidden).
        grid: wanted number of patches along each axis.
        source_img_size: input size in voxels that they were made for; by default `grid` is assumed
            where the number fits, and else a cube.
        path: the file they come from, for messages.

    Returns:
        Position embeddings (1, patches of `grid`, hidden), and the two grids where they differ.

    Raises:
        ValueError: if their number fits no grid.
    """
    grid, count = list(grid), positions.shape[1]
    source = _source_grid(count, grid, source_img_size)
    patches = source[0] * source[1] * source[2]
    if patches == 0 or count not in (patches, patches + 1):
        reason = (
            f"fit neither this network's {grid} patches nor a cube; give source_img_size, the "
            "input size in voxels that they were made for"
            if source_img_size is None
            else f"do not fit the {source} patches of source_img_size {list(source_img_size)}"
        )
        raise ValueError(f"{path}: {count} position embeddings {reason}")
    positions = positions[:, count - patches :]
    if source == grid:
        return positions, None
    volume = positions.transpose(1, 2).reshape(1, -1, *source).float()
    volume = functional.interpolate(volume, size=grid, mode="trilinear", align_corners=False)
    return volume.flatten(2).transpose(1, 2), (source, grid)


def _source_grid(count: int, grid: list[int], source_img_size: Sequence[int] | None) -> list[int]:
    """Patches along each axis that `count` embeddings were made for; zeros if there is no such."""
    if source_img_size is not None:
        return [size // PATCH_SIZE for size in source_img_size]
    if count - grid[0] * grid[1] * grid[2] in (0, 1):
        return grid
    nearest = round(count ** (1 / 3))
    side = next((s for s in (nearest, nearest - 1) if s**3 in (count, count - 1)), 0)
    return [side, side, side]
