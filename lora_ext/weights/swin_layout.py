"""A Swin encoder's keys inside any checkpoint of MONAI's SwinUNETR form, and its sizes.

Taken are a ``SwinTransformer``, ``SwinUNETR`` or ``SSLHead`` of MONAI and what was pre-trained with
them (MONAI's SSL on 5,050 CT, BrainSegFounder, VoCo), under any prefix (``module.``, ``swinViT.``,
``swin_vit.``, ``encoder.``), with the names of older versions too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lora_ext.weights.sizes import check_keys, check_sizes

# The first stage's first norm; some files of MONAI 0.8 number a stage's layers twice.
ANCHOR = re.compile(r"^(|.*\.)layers1\.0\.(0\.)?blocks\.0\.norm1\.weight$")
NUMBERED_TWICE = re.compile(r"^(layers\d\.0)\.0\.")
OLD_MLP = re.compile(r"\.mlp\.fc([12])\.")  # MONAI before 0.9
V2 = re.compile(r"^layers\dc\.")  # the convolutions before each stage of SwinUNETR-V2
ENCODER = re.compile(r"^(patch_embed|layers\dc?)\.")
INDEX = "relative_position_index"  # a table that the window's size makes
PATCHES = "patch_embed.proj.weight"
# The constructor's argument, and flag, by the size's name in a sentence.
ARGUMENTS = {
    "feature size": "feature_size",
    "depths": "depths",
    "attention heads": "num_heads",
    "use_v2": "use_v2",
}
# What to say beside this network's own size: the flag that changes it, or why there is none.
NOTES = {name: f"--{argument}" for name, argument in ARGUMENTS.items()} | {
    "window": "tokens along an axis",
    "patch size": "voxels",
    "input channels": "each image channel is encoded on its own",
}


@dataclass(frozen=True)
class SwinFile:
    """A pre-trained Swin encoder in a file.

    Attributes:
        path: the file, as it was named.
        tensors: the encoder's tensors by MONAI's names.
        skipped: the other keys of the file.
    """

    path: str
    tensors: dict[str, Tensor]
    skipped: list[str]

    @property
    def said(self) -> dict[str, Any]:
        """The constructor's arguments of the network that the tensors show."""
        sizes = swin_sizes(self.tensors)
        return {key: sizes[name] for name, key in ARGUMENTS.items() if name in sizes}

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments to build the network with: all of them show."""
        return self.said


def holds_swin(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict holds a Swin encoder."""
    return any(map(ANCHOR.match, tensors))


def swin_tensors(
    tensors: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Keep the weights of the Swin encoder, under the names that they have in MONAI today.

    Args:
        tensors: a flat state dict of a Swin encoder or of anything with one inside.
        path: the file it comes from, for messages.

    Returns:
        The encoder's tensors by MONAI's names; and the other keys, such as ``rotation_head.weight``
        and those of a decoder. The tables of relative positions, which follow from the window's
        size, are in neither.

    Raises:
        ValueError: if there is no such encoder in it, or several.
    """
    found = {match[1]: match[2] for match in map(ANCHOR.match, tensors) if match}
    if len(found) != 1:
        raise ValueError(
            f"{path}: expected one Swin encoder of MONAI (a key ending in "
            f"'layers1.0.blocks.0.norm1.weight'); found {sorted(found) or 'none'} among "
            f"{len(tensors)} keys such as {sorted(tensors)[:3]}; give the weights of a SwinUNETR "
            "or SSLHead, or take another --backbone"
        )
    prefix, inside, skipped = next(iter(found)), dict[str, Tensor](), list[str]()
    for key, value in tensors.items():
        own = key.removeprefix(prefix)
        own = OLD_MLP.sub(r".mlp.linear\1.", NUMBERED_TWICE.sub(r"\1.", own))
        if ENCODER.match(own) and key.startswith(prefix) and not own.endswith(INDEX):
            inside[own] = value
        else:
            skipped.append(key)
    return inside, [key for key in skipped if not key.endswith(INDEX)]


def check_swin(
    source: Mapping[str, Tensor], targets: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> None:
    """Refuse a Swin encoder of other sizes, or one that lacks a weight or would lose one.

    Args:
        source: as `swin_tensors` gives them.
        targets: the network's encoder, by MONAI's names.
        path: the file that `source` comes from, for messages.

    Raises:
        ValueError: one sentence that says what differs.
    """
    check_sizes(swin_sizes(source), swin_sizes(targets), path, notes=NOTES)
    lost = [key for key in source if key not in targets]
    if lost:
        raise ValueError(
            f"{path}: has {len(lost)} encoder weights that this network has no place for, the "
            f"first is {lost[0]!r}; give the weights of a SwinUNETR with MONAI's own settings"
        )
    check_keys(source, targets, path)


def swin_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read off a Swin encoder's tensors what they show of its sizes, by their names in `NOTES`.

    Args:
        tensors: as `swin_tensors` gives them.

    Returns:
        All that the tensors show; without those whose tensors are missing or of another form.
    """
    sizes: dict[str, Any] = {}
    shape = list(tensors[PATCHES].shape) if PATCHES in tensors else []
    if len(shape) == 5:
        sizes = {"feature size": shape[0], "patch size": shape[2:], "input channels": shape[1]}
    sizes["use_v2"] = any(map(V2.match, tensors))
    blocks = {key.partition(".attn.")[0] for key in tensors if ".attn." in key}
    stages = sorted({block.partition(".")[0] for block in blocks})
    sizes["depths"] = [sum(block.startswith(f"{s}.") for block in blocks) for s in stages]
    tables = [tensors.get(f"{s}.0.blocks.0.attn.relative_position_bias_table") for s in stages]
    shapes = [tuple(t.shape) for t in tables if t is not None and t.ndim == 2]
    if len(shapes) == len(stages):
        sizes["attention heads"] = [heads for _, heads in shapes]
        sizes["window"] = [(round(rows ** (1 / 3)) + 1) // 2 for rows, _ in shapes]
    return sizes
