"""Pre-trained single-channel ViTs into the shared encoder (DESIGN section 6).

Taken are MONAI's own key names (``patch_embedding.*``, ``blocks.*``, ``norm.*``) under any prefix:
a ``ViT``, ``MaskedAutoEncoderViT``, ``ViTAutoEnc``, ``UNETR`` or one of our networks, wrapped or
not. Nothing is skipped in silence: the report names every key.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from lora_ext.encoder import PATCH_SIZE
from lora_ext.regimes import get_regime, parameter_parts
from lora_ext.weights.reading import read_tensors

if TYPE_CHECKING:
    from lora_ext.unetr import ChannelLoRAUNETR

logger = logging.getLogger(__name__)

FINAL_NORM = re.compile(r"^blocks\.\d+\.(weight|bias)$")
POSITIONS = "patch_embedding.position_embeddings"
MAY_BE_MISSING = ("norm.weight", "norm.bias")  # an encoder may end without a final norm


@dataclass(frozen=True)
class EncoderReport:
    """What `load_encoder` did with every key.

    Attributes:
        path: the file that was read.
        loaded: keys of the encoder that now hold the file's values.
        skipped: keys of the file that the encoder has no place for.
        missing: keys of the encoder that the file lacks; they keep their values.
        resampled: sizes of the position embeddings' grid, from and to, if it was resampled.
    """

    path: str
    loaded: list[str]
    skipped: list[str]
    missing: list[str]
    resampled: tuple[list[int], list[int]] | None = field(default=None)

    def __str__(self) -> str:
        """One line for the console."""
        text = (
            f"encoder loaded from {self.path}: {len(self.loaded)} keys loaded, "
            f"{len(self.skipped)} skipped, {len(self.missing)} missing"
        )
        if self.missing:
            text += f" ({', '.join(self.missing)})"
        if self.resampled:
            text += f"; position embeddings resampled from {self.resampled[0]} patches to "
            text += f"{self.resampled[1]}"
        return text


def load_encoder(
    network: ChannelLoRAUNETR,
    path: str | os.PathLike[str],
    source_img_size: Sequence[int] | None = None,
) -> EncoderReport:
    """Load a pre-trained single-channel ViT into a network's shared encoder, in place.

    Args:
        network: the network whose encoder is filled; adapters, fusion and decoder stay as they are.
        path: ``.safetensors`` or a torch file that opens with ``weights_only=True``.
        source_img_size: input size in voxels that the file's position embeddings were made for;
            needed only when their grid is neither this network's nor a cube.

    Returns:
        Every key loaded, skipped and missing.

    Raises:
        ValueError: if the file has no ViT blocks or several sets of them, if a weight of the patch
            embedding or of a block is missing or has another shape, or if the position embeddings
            cannot be resampled.
    """
    source, skipped = _strip_prefix(read_tensors(path), path)
    base = {id(p) for p in parameter_parts(network)["encoder"]}
    targets = {k: p for k, p in network.encoder.named_parameters() if id(p) in base}
    resampled = None
    if POSITIONS in source and POSITIONS in targets:
        grid = [size // PATCH_SIZE for size in network.encoder.img_size]
        source[POSITIONS], resampled = _fit_positions(
            source[POSITIONS], grid, source_img_size, path
        )
    missing = [k for k in targets if k not in source]
    _check_fit(source, targets, missing, path)
    with torch.no_grad():
        for key in targets.keys() & source.keys():
            targets[key].copy_(source[key])
    skipped += [k for k in source if k not in targets]
    loaded = [k for k in targets if k in source]
    return EncoderReport(os.fspath(path), loaded, sorted(skipped), missing, resampled)


def start_encoder(network: ChannelLoRAUNETR, pretrained: str | None) -> None:
    """Bring the encoder to where the network's regime starts from, and say so in the log.

    Args:
        network: a fresh network.
        pretrained: path of the pre-trained ViT; ``None`` or ``"none"`` leaves it random.

    Raises:
        ValueError: if `pretrained` is given for a regime that starts at random, or does not fit.
    """
    wanted = get_regime(network.regime).pretrained
    given = pretrained is not None and str(pretrained).lower() != "none"
    if given and not wanted:
        raise ValueError(
            f"regime {network.regime!r} starts from a random encoder, but pretrained={pretrained!r}"
            " was given; use regime 'finetune' to start from it, or leave pretrained out"
        )
    if given:
        logger.info("%s", load_encoder(network, str(pretrained)))
    elif wanted:
        logger.warning(
            "regime %r expects a pre-trained encoder and none was given (--pretrained FILE): "
            "it starts from random weights",
            network.regime,
        )


def _strip_prefix(
    tensors: dict[str, Tensor], path: str | os.PathLike[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Keep the keys beside the ViT's blocks, without their prefix; list the others."""
    anchor = "blocks.0.norm1.weight"
    prefixes = [k.removesuffix(anchor) for k in tensors if k.endswith(anchor)]
    prefixes = [p for p in prefixes if p == "" or p.endswith(".")]
    if len(prefixes) != 1:
        raise ValueError(
            f"{path}: expected the blocks of one MONAI ViT (a key ending in '{anchor}'); found "
            f"{prefixes or 'none'} among {len(tensors)} keys such as {sorted(tensors)[:3]}"
        )
    prefix = prefixes[0]
    inside = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    # MONAI's masked auto-encoder keeps the final norm as one more entry of its blocks.
    inside = {FINAL_NORM.sub(r"norm.\1", k): v for k, v in inside.items()}
    return inside, [k for k in tensors if not k.startswith(prefix)]


def _check_fit(
    source: dict[str, Tensor],
    targets: dict[str, torch.nn.Parameter],
    missing: list[str],
    path: str | os.PathLike[str],
) -> None:
    found, depth = (
        len({k.split(".")[1] for k in keys if k.startswith("blocks.")})
        for keys in (source, targets)
    )
    if found != depth:
        raise ValueError(f"{path}: has {found} transformer blocks; the encoder has {depth}")
    lost = [k for k in missing if k not in MAY_BE_MISSING]
    if lost:
        raise ValueError(f"{path}: lacks {len(lost)} encoder weights, the first is {lost[0]!r}")
    for key, target in targets.items():
        if key in source and source[key].shape != target.shape:
            raise ValueError(
                f"{path}: {key!r} has shape {list(source[key].shape)}; "
                f"the encoder needs {list(target.shape)}"
            )


def _fit_positions(
    positions: Tensor,
    grid: list[int],
    source_img_size: Sequence[int] | None,
    path: str | os.PathLike[str],
) -> tuple[Tensor, tuple[list[int], list[int]] | None]:
    """Drop a class token and resample position embeddings (1, N, hidden) to another grid."""
    count = positions.shape[1]
    wanted = grid[0] * grid[1] * grid[2]
    if source_img_size is not None:
        found = [size // PATCH_SIZE for size in source_img_size]
    elif count in (wanted, wanted + 1):
        found = grid
    else:
        nearest = round(count ** (1 / 3))
        side = next((s for s in (nearest, nearest - 1) if s**3 in (count, count - 1)), 0)
        found = [side, side, side]
    patches = found[0] * found[1] * found[2]
    if patches == 0 or count not in (patches, patches + 1):
        raise ValueError(
            f"{path}: {count} position embeddings fit neither this network's {grid} patches nor a "
            "cube; give source_img_size, the input size in voxels that they were made for"
        )
    positions = positions[:, count - patches :]
    if found == grid:
        return positions, None
    volume = positions.transpose(1, 2).reshape(1, -1, *found).float()
    volume = functional.interpolate(volume, size=grid, mode="trilinear", align_corners=False)
    return volume.flatten(2).transpose(1, 2), (found, grid)
