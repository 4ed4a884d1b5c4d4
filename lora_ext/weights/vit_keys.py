"""A MONAI ViT's keys inside any checkpoint: found, stripped of their prefix, and checked."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping

from torch import Tensor

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
    """Refuse a ViT that would lose a weight of its blocks, lacks one, or has another shape.

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
    for key, target in targets.items():
        if key in source and source[key].shape != target.shape:
            raise ValueError(
                f"{path}: {key!r} has shape {list(source[key].shape)}; "
                f"the encoder needs {list(target.shape)}"
            )


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
