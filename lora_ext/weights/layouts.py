"""Published layouts of a plain 3D ViT, found in any checkpoint and brought to MONAI's names.

Two families are taken, each exactly. MONAI's own names (``patch_embedding.*``,
``blocks.*.attn.out_proj``), with patches embedded by a convolution or by a perceptron. And timm's,
which MAE and DINOv2 share (``patch_embed.proj``, ``attn.proj``, ``mlp.fc1``, ``pos_embed``), with
blocks in chunks, LayerScale, class token and registers. An architecture that computes something
else than a plain ViT is refused by its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_ext.networks.loading import check_weight

ANCHOR = re.compile(r"^(|.+\.)blocks\.(?:0\.)?0\.norm1\.weight$")  # every ViT has it, once
FINAL_NORM = re.compile(r"^blocks\.\d+\.(weight|bias)$")  # MONAI's masked auto-encoder
CHUNK = re.compile(r"^blocks\.\d+\.(?=\d+\.)")  # DINOv2; the second number counts all blocks
POSITIONS = "patch_embedding.position_embeddings"
PREFIX = "prefix_tokens"
CONVOLUTION = "patch_embedding.patch_embeddings.weight"
PERCEPTRON = "patch_embedding.patch_embeddings.1"
MONAI_EPS, TIMM_EPS = 1e-5, 1e-6  # of the layer norms; no tensor shows it

TIMM = ("patch_embed.proj.weight", "blocks.0.attn.proj.weight")
TIMM_NAMES = (
    ("patch_embed.proj.", "patch_embedding.patch_embeddings."),
    (".attn.proj.", ".attn.out_proj."),
    (".mlp.fc1.", ".mlp.linear1."),
    (".mlp.fc2.", ".mlp.linear2."),
)
# In the order in which they stand before the patches. The last are DINOv2's registers, which come
# in when the positions have been added.
TOKENS = ("cls_token", "dist_token", "reg_token", "register_tokens")
LAYER_SCALE = re.compile(r"^(blocks\.\d+\.)(?:ls|gamma_)([12])(?:\.gamma)?$")
SCALED = {"1": "attn.out_proj", "2": "mlp.linear2"}  # what a block's two factors multiply

REFUSED = (
    (r"\.attn\.rel_pos_\w+$", "the image encoder of SAM (SAM-Med3D)",
     "relative positions and attention in windows"),
    (r"(^|\.)(eva\.blocks\.|down_projection\.proj\.)", "Primus or another EVA",
     "rotary positions, gated MLPs (SwiGLU) and, in Primus, patches of 8x8x8 voxels"),
    (r"\.relative_position_bias_table$", "a Swin transformer (--backbone swin_unetr takes MONAI's)",
     "attention in shifted windows, relative positions and patches that merge"),
    (r"(^|\.)rope", "a ViT such as DINOv3's", "rotary positions"),
    (r"\.mlp\.(w12|w1|w3|fc1_g)\.", "a ViT such as DINOv2's giant", "gated MLPs (SwiGLU)"),
    (r"(^|\.)norm_pre\.", "a ViT such as CLIP's", "a norm before its first block"),
)  # fmt: skip


@dataclass(frozen=True)
class PlainViT:
    """A ViT out of some file, under the names that our encoder has.

    Attributes:
        tensors: its tensors; class token and registers are ``prefix_tokens``, without positions.
        skipped: keys of the file that are outside of it.
        leading: how many of the position embeddings may belong to prefix tokens, the likeliest
            number first.
        norm_eps: what ViTs of this layout add to the variance in their layer norms.
    """

    tensors: dict[str, Tensor]
    skipped: list[str]
    leading: tuple[int, ...]
    norm_eps: float


def plain_vit(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> PlainViT:
    """Find the ViT in a state dict and bring it to MONAI's names.

    Args:
        tensors: a flat state dict of a ViT or of anything with one inside.
        path: the file it comes from, for messages.

    Returns:
        The ViT. The prefix of its keys (``vit.``, ``module.encoder.``, ...) is taken off, and a
        masked auto-encoder's final norm, one more entry of its blocks, is ``norm``.

    Raises:
        ValueError: if there is no ViT in it, or several, or one that computes something else.
    """
    _check_architecture(tensors, path)
    prefix = _prefix(tensors, path)
    inside = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    skipped = [k for k in tensors if not k.startswith(prefix)]
    inside = {CHUNK.sub("blocks.", k): v for k, v in inside.items()}
    if any(key in inside for key in TIMM):
        return _timm(inside, skipped, path)
    inside = {FINAL_NORM.sub(r"norm.\1", k): v for k, v in inside.items()}
    _unfold_perceptron(inside)
    # A position of MONAI's class token, which is not taken, is dropped.
    return PlainViT(inside, skipped, (0, 1), MONAI_EPS)


def _check_architecture(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    for pattern, name, parts in REFUSED:
        key = next((k for k in tensors if re.search(pattern, k)), None)
        if key is not None:
            raise ValueError(
                f"{path}: found {name} (by {key!r}), whose {parts} have no place in a plain ViT; "
                "expected a plain one (python -m lora_ext encoders lists public ones)"
            )


def _prefix(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> str:
    """What stands before the names of the one ViT that there is."""
    found = [match[1] for match in map(ANCHOR.match, tensors) if match]
    encoders = [prefix for prefix in found if "decoder" not in prefix.split(".")]
    if any("teacher" in prefix.split(".") for prefix in encoders):  # the one that is kept
        encoders = [prefix for prefix in encoders if "student" not in prefix.split(".")]
    if len(encoders) == 1:
        return encoders[0]
    what: object = encoders or "none"
    if not encoders and any("decoder" in key for key in tensors):
        what = "a decoder alone"
    raise ValueError(
        f"{path}: expected the blocks of one ViT (a key ending in 'blocks.0.norm1.weight'); found "
        f"{what} among {len(tensors)} keys such as {sorted(tensors)[:3]}"
    )


def _unfold_perceptron(tensors: dict[str, Tensor]) -> None:
    """Make a linear layer on patches, as MONAI's ``perceptron`` is, the equal convolution."""
    weight = tensors.get(f"{PERCEPTRON}.weight")
    if weight is None or weight.ndim != 2:
        return
    voxels, channels = weight.shape[1], 1
    side = round(voxels ** (1 / 3))
    if side**3 != voxels:  # several channels, which MONAI has last
        side, channels = 16, voxels // 16**3
    if side**3 * channels != voxels:
        return  # a patch of another form
    cube = weight.reshape(-1, side, side, side, channels).permute(0, 4, 1, 2, 3)
    tensors[CONVOLUTION] = cube
    del tensors[f"{PERCEPTRON}.weight"]
    if f"{PERCEPTRON}.bias" in tensors:
        tensors[CONVOLUTION.replace("weight", "bias")] = tensors.pop(f"{PERCEPTRON}.bias")


def _timm(
    tensors: Mapping[str, Tensor], skipped: Sequence[str], path: str | os.PathLike[str]
) -> PlainViT:
    """Bring timm's names to MONAI's, and what MONAI's blocks do not have into what they have."""
    renamed = {}
    for key, value in tensors.items():
        for theirs, ours in TIMM_NAMES:
            key = key.replace(theirs, ours)
        renamed[POSITIONS if key == "pos_embed" else key] = value
    _fold_layer_scale(renamed, path)
    tokens = {name: renamed.pop(name) for name in TOKENS if name in renamed}
    for name, token in tokens.items():
        _check_number(name, token, path)
        if token.ndim != 3 or len(token) != 1:
            raise ValueError(
                f"{path}: {name!r} has shape {list(token.shape)}; expected [1, tokens, hidden size]"
            )
    positioned = sum(v.shape[1] for k, v in tokens.items() if k != "register_tokens")
    if tokens:
        renamed[PREFIX] = torch.cat([token.float() for token in tokens.values()], dim=1)
    # timm's `no_embed_class` leaves the positions to the patches
    leading = tuple(dict.fromkeys((positioned, 0)))
    return PlainViT(renamed, list(skipped), leading, TIMM_EPS)


def _fold_layer_scale(tensors: dict[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Multiply the rows and the bias of a layer by the factors that follow it, which is the same.

    In the precision of float32 at least: a product of two halves is none.
    """
    for key, match in [(k, m) for k in tensors if (m := LAYER_SCALE.match(k))]:
        factors, layer = tensors.pop(key), match[1] + SCALED[match[2]]
        for name in (f"{layer}.weight", f"{layer}.bias"):
            value = tensors.get(name)
            if value is None:
                continue  # `check_keys` names it
            _check_number(key, factors, path)
            _check_number(name, value, path)
            if factors.shape != value.shape[:1]:
                raise ValueError(
                    f"{path}: {key!r} has shape {list(factors.shape)}; expected "
                    f"{list(value.shape[:1])}, one factor for each row of {name!r}"
                )
            rows = factors.reshape(-1, *[1] * (value.ndim - 1))
            exact = torch.promote_types(torch.promote_types(rows.dtype, value.dtype), torch.float32)
            tensors[name] = rows.to(exact) * value.to(exact)


def _check_number(key: str, value: Tensor, path: str | os.PathLike[str]) -> None:
    check_weight(key, value, torch.empty(0), path)
