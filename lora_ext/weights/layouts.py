"""A MONAI ViT's keys inside any checkpoint: found, stripped of their prefix, and checked.

A MONAI ViT's sizes, as its tensors show them, and what differs from another's, in words.

Position embeddings of a ViT, resampled to another grid of patches.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from lora_ext.networks.encoder import PATCH_SIZE
from lora_ext.weights.reading import check_weights

ANCHOR = "blocks.0.norm1.weight"  # every MONAI ViT has it, once
FINAL_NORM = re.compile(r"^blocks\.\d+\.(weight|bias)$")
# MONAI makes these in every block and uses them in none: norm_cross_attn since 1.4, cross_attn in
# 1.4 and 1.5 (`ViT.load_old_state_dict` drops them for the same reason).
UNUSED_IN_BLOCKS = re.compile(r"^blocks\.\d+\.(norm_)?cross_attn\.")
QKV_BIAS = re.compile(r"^blocks\.\d+\.attn\.qkv\.bias$")


def vit_tensors(
    tensors: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Keep the tensors beside the ViT's blocks, under the names that they have in a plain `ViT`.

    Args:
        tensors: a flat state dict of a ViT or of anything with one inside.
        path: the file it comes from, for messages.

    Returns:
        The tensors with their prefix (``vit.``, ``module.encoder.``, ...) taken off and the masked
        auto-encoder's final norm, one more entry of its blocks, as ``norm``; and the other keys.

    Raises:
        ValueError: if there is no ViT in it, or several.
    """
    prefixes = [k.removesuffix(ANCHOR) for k in tensors if k.endswith(ANCHOR)]
    prefixes = [p for p in prefixes if p == "" or p.endswith(".")]  # not `decoder_`blocks
    if len(prefixes) != 1:
        raise ValueError(
            f"{path}: expected the blocks of one MONAI ViT (a key ending in '{ANCHOR}'); found "
            f"{prefixes or 'none'} among {len(tensors)} keys such as {sorted(tensors)[:3]}"
        )
    prefix = prefixes[0]
    inside = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    inside = {FINAL_NORM.sub(r"norm.\1", k): v for k, v in inside.items()}
    return inside, [k for k in tensors if not k.startswith(prefix)]


def check_keys(
    source: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    may_be_missing: Collection[str] = (),
) -> None:
    """Refuse a ViT that would lose a weight of its blocks, lacks one, or has one that cannot be.

    Args:
        source: a ViT's tensors, as `vit_tensors` gives them.
        targets: the encoder's weights, by MONAI's names.
        path: the file that `source` comes from, for messages.
        may_be_missing: keys that `source` can do without.

    Raises:
        ValueError: one sentence that names the first key.
    """
    _check_no_block_weight_is_lost(source, targets, path)
    missing = [k for k in targets if k not in source and k not in may_be_missing]
    if missing:
        raise ValueError(
            f"{path}: lacks {len(missing)} encoder weights, the first is {missing[0]!r}"
        )
    check_weights(source, targets, path)


def _check_no_block_weight_is_lost(
    source: Mapping[str, Tensor], targets: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> None:
    lost = [
        k
        for k in source
        if k.startswith("blocks.") and k not in targets and not UNUSED_IN_BLOCKS.match(k)
    ]
    if lost and all(QKV_BIAS.match(k) for k in lost):
        raise ValueError(
            f"{path}: its blocks have a qkv bias ({lost[0]!r}); this network's have none "
            "(MONAI's qkv_bias=False)"
        )
    if lost:
        raise ValueError(
            f"{path}: has {len(lost)} block weights that the shared encoder has no place for, the "
            f"first is {lost[0]!r}"
        )


MLP = "blocks.0.mlp.linear1.weight"
CONVOLUTION = "patch_embedding.patch_embeddings.weight"
PERCEPTRON = "patch_embedding.patch_embeddings.1.weight"
# What to say beside this network's own size: the flag that changes it, or why there is none.
NOTES = {
    "hidden size": "--hidden_size",
    "depth": "--num_layers",
    "MLP width": "--mlp_dim",
    "attention heads": "--num_heads",
    "patch embedding": "MONAI's proj_type",
    "patch size": "voxels",
    "input channels": "each image channel is encoded on its own",
}


def vit_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read off a ViT's tensors what they show of its sizes, by their names in `NOTES`.

    Args:
        tensors: a ViT's tensors, as `vit_tensors` gives them.

    Returns:
        Hidden size, depth, MLP width, patch embedding, patch size in voxels and input channels;
        without those whose tensors are missing. The number of heads leaves no trace in a tensor.
    """
    blocks = {k.split(".")[1] for k in tensors if k.startswith("blocks.")}
    sizes: dict[str, Any] = {"hidden size": tensors[ANCHOR].numel(), "depth": len(blocks)}
    if MLP in tensors:
        sizes["MLP width"] = next(iter(tensors[MLP].shape), 1)
    if CONVOLUTION in tensors:
        shape = list(tensors[CONVOLUTION].shape)
        sizes |= {"patch embedding": "conv", "patch size": shape[2:]}
        sizes["input channels"] = next(iter(shape[1:]), 1)
    elif PERCEPTRON in tensors:
        sizes["patch embedding"] = "perceptron"
    return sizes


def check_sizes(
    found: Mapping[str, Any],
    allowed: Mapping[str, Any],
    path: str | os.PathLike[str],
    notes: Mapping[str, str] = NOTES,
) -> None:
    """Refuse an encoder of other sizes.

    Args:
        found: the file's sizes, by their names in `notes`; what is not known is left out.
        allowed: this network's sizes.
        path: the file, for messages.
        notes: what to say beside each of this network's sizes.

    Raises:
        ValueError: one sentence that says every size that differs, such as "hidden size 384; this
            network has 768 (--hidden_size)".
    """
    wrong = [k for k in notes if k in found and k in allowed and found[k] != allowed[k]]
    if wrong:
        theirs = ", ".join(f"{k} {found[k]}" for k in wrong)
        ours = ", ".join(f"{allowed[k]} ({notes[k]})" for k in wrong)
        raise ValueError(f"{path}: {theirs}; this network has {ours}")


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
        ValueError: if their shape is another, or their number fits no grid.
    """
    if positions.ndim != 3 or len(positions) != 1:
        raise ValueError(
            f"{path}: position embeddings have shape {list(positions.shape)}; expected [1, patches,"
            " hidden size]: save them so"
        )
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
