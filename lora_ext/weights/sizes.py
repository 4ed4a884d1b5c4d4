"""A ViT's sizes, as its tensors show them, and what differs from another's, in words."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from lora_ext.weights.layouts import CONVOLUTION, PERCEPTRON, PREFIX
from lora_ext.weights.reading import check_weights

NORM, MLP = "blocks.0.norm1.weight", "blocks.0.mlp.linear1.weight"
QKV_BIAS = "blocks.0.attn.qkv.bias"
# MONAI makes these in every block and uses them in none: norm_cross_attn since 1.4, cross_attn in
# 1.4 and 1.5 (`ViT.load_old_state_dict` drops them for the same reason).
UNUSED_IN_BLOCKS = re.compile(r"^blocks\.\d+\.(norm_)?cross_attn\.")
# The constructor's argument, and flag, by the size's name in a sentence.
ARGUMENTS = {
    "hidden size": "hidden_size",
    "depth": "num_layers",
    "MLP width": "mlp_dim",
    "attention heads": "num_heads",
    "qkv bias": "qkv_bias",
    "prefix tokens": "num_prefix_tokens",
    "LayerNorm eps": "norm_eps",
}
# What to say beside this network's own size: the flag that changes it, or why there is none.
NOTES = {name: f"--{argument}" for name, argument in ARGUMENTS.items()} | {
    "patch embedding": "MONAI's proj_type",
    "patch size": "voxels",
    "input channels": "each image channel is encoded on its own",
}


def vit_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read off a ViT's tensors what they show of its sizes, by their names in `NOTES`.

    Args:
        tensors: a ViT's tensors by MONAI's names, as `plain_vit` gives them.

    Returns:
        Hidden size, depth, whether there is a qkv bias, number of prefix tokens, MLP width, patch
        embedding, patch size in voxels and input channels; without those whose tensors are missing.
        The number of heads leaves no trace in a tensor.
    """
    blocks = {k.split(".")[1] for k in tensors if k.startswith("blocks.")}
    sizes: dict[str, Any] = {
        "hidden size": tensors[NORM].numel(),
        "depth": len(blocks),
        "qkv bias": QKV_BIAS in tensors,
        "prefix tokens": tensors[PREFIX].shape[1:2].numel() if PREFIX in tensors else 0,
    }
    if MLP in tensors:
        sizes["MLP width"] = next(iter(tensors[MLP].shape), 1)
    if CONVOLUTION in tensors:
        shape = list(tensors[CONVOLUTION].shape)
        sizes |= {"patch embedding": "conv", "patch size": shape[2:]}
        sizes["input channels"] = next(iter(shape[1:]), 1)
        if len(shape) == 2:  # a linear layer whose order of voxels is not known
            del sizes["patch size"], sizes["input channels"]
            sizes["patch embedding"] = "linear"
    elif f"{PERCEPTRON}.weight" in tensors:
        sizes["patch embedding"] = "perceptron"
    return sizes


def check_sizes(
    found: Mapping[str, Any],
    allowed: Mapping[str, Any],
    path: str | os.PathLike[str],
    hint: str = "",
    notes: Mapping[str, str] = NOTES,
) -> None:
    """Refuse an encoder of other sizes.

    Args:
        found: the file's sizes, by their names in `notes`; what is not known is left out.
        allowed: this network's sizes.
        path: the file, for messages.
        hint: the end of the sentence.
        notes: what to say beside each of this network's sizes.

    Raises:
        ValueError: one sentence that says every size that differs, such as "hidden size 384; this
            network has 768 (--hidden_size)".
    """
    wrong = [k for k in notes if k in found and k in allowed and found[k] != allowed[k]]
    if wrong:
        theirs = ", ".join(f"{k} {found[k]}" for k in wrong)
        ours = ", ".join(f"{allowed[k]} ({notes[k]})" for k in wrong)
        raise ValueError(f"{path}: {theirs}; this network has {ours}{hint}")


def check_keys(
    source: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    may_be_missing: Collection[str] = (),
) -> None:
    """Refuse a ViT that would lose a weight of its blocks, lacks one, or has one that cannot be.

    Args:
        source: a ViT's tensors, as `plain_vit` gives them.
        targets: the encoder's weights, by MONAI's names.
        path: the file that `source` comes from, for messages.
        may_be_missing: keys that `source` can do without.

    Raises:
        ValueError: one sentence that names the first key.
    """
    lost = [
        k
        for k in source
        if k.startswith("blocks.") and k not in targets and not UNUSED_IN_BLOCKS.match(k)
    ]
    if lost:
        raise ValueError(
            f"{path}: has {len(lost)} block weights that the shared encoder has no place for, the "
            f"first is {lost[0]!r}"
        )
    missing = [k for k in targets if k not in source and k not in may_be_missing]
    if missing:
        raise ValueError(
            f"{path}: lacks {len(missing)} encoder weights, the first is {missing[0]!r}"
        )
    check_weights(source, targets, path)
