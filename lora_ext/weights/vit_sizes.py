"""A MONAI ViT's sizes, as its tensors show them, and what differs from another's, in words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lora_ext.weights.vit_keys import ANCHOR

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
    sizes: dict[str, Any] = {"hidden size": tensors[ANCHOR].shape[0], "depth": len(blocks)}
    if MLP in tensors:
        sizes["MLP width"] = tensors[MLP].shape[0]
    if CONVOLUTION in tensors:
        shape = list(tensors[CONVOLUTION].shape)
        sizes |= {"patch embedding": "conv", "patch size": shape[2:], "input channels": shape[1]}
    elif PERCEPTRON in tensors:
        sizes["patch embedding"] = "perceptron"
    return sizes


def check_sizes(
    found: Mapping[str, Any], allowed: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Refuse a ViT of other sizes.

    Args:
        found: the file's sizes, by their names in `NOTES`; what is not known is left out.
        allowed: this network's sizes.
        path: the file, for messages.

    Raises:
        ValueError: one sentence that says every size that differs, such as "hidden size 384; this
            network has 768 (--hidden_size)".
    """
    wrong = [k for k in NOTES if k in found and k in allowed and found[k] != allowed[k]]
    if wrong:
        theirs = ", ".join(f"{k} {found[k]}" for k in wrong)
        ours = ", ".join(f"{allowed[k]} ({NOTES[k]})" for k in wrong)
        raise ValueError(f"{path}: {theirs}; this network has {ours}")
