"""Encoder files: a pre-trained single-channel ViT on its own, as `load_encoder` takes it.

A state dict does not show a ViT's number of heads, nor which grid its position embeddings were
made for, so the file's metadata says both.

Pre-trained single-channel ViTs into the shared encoder (DESIGN section 6).

Taken are MONAI's own key names (``patch_embedding.*``, ``blocks.*``, ``norm.*``) under any prefix:
a ``ViT``, ``MaskedAutoEncoderViT``, ``ViTAutoEnc``, ``UNETR`` or one of our networks without
adapters, wrapped or not. Nothing is skipped in silence: the report names every key.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor, nn

from lora_ext.files import whole_file
from lora_ext.networks.encoder import PATCH_SIZE, ChannelEncoder
from lora_ext.networks.loading import check_weight
from lora_ext.networks.regimes import parameter_parts
from lora_ext.networks.swin_unetr import SwinEncoder
from lora_ext.weights.layouts import (
    Resampling,
    check_keys,
    check_sizes,
    fit_positions,
    vit_sizes,
    vit_tensors,
)
from lora_ext.weights.reading import read_metadata, read_tensors
from lora_ext.weights.swin_layout import check_swin, swin_tensors

if TYPE_CHECKING:
    from lora_ext.networks.channel_network import ChannelNetwork


FORMAT = "lora_ext encoder 1"


def save_encoder(
    state: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    img_size: Sequence[int],
    num_heads: int,
    **facts: str | int | float,
) -> None:
    """Write the encoder of a ViT or masked auto-encoder to a file, whole or not at all.

    Args:
        state: state dict of a MONAI ``MaskedAutoEncoderViT`` or ``ViT`` on one channel.
        path: the ``.safetensors`` file to write, with the keys of `lora_ext.networks.encoder`.
        img_size: input size in voxels that the ViT was trained on.
        num_heads: its attention heads per block.
        **facts: what else the file should say of itself, as text.

    Raises:
        ValueError: if `state` holds no such ViT, or `img_size` or `num_heads` do not fit it.
    """
    name = "encoder to save"
    source, _ = vit_tensors(state, name)
    sizes = vit_sizes(source)
    with torch.device("meta"):  # keys and shapes alone
        encoder = ChannelEncoder(
            ("volume",), img_size, hidden_size=sizes["hidden size"], num_layers=sizes["depth"],
            mlp_dim=sizes.get("MLP width", 1), num_heads=num_heads,
        )  # fmt: skip
    targets = dict(encoder.named_parameters())
    check_sizes(sizes, vit_sizes(targets), name)
    check_keys(source, targets, name)
    tensors = {
        k: source[k].detach().cpu().clone(memory_format=torch.contiguous_format) for k in targets
    }
    metadata = {k: str(v) for k, v in facts.items()}
    metadata |= {"img_size": json.dumps(encoder.img_size), "num_heads": str(num_heads)}
    with whole_file(path) as draft:
        safetensors.torch.save_file(tensors, draft, metadata={**metadata, "format": FORMAT})


def encoder_facts(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return what an encoder file says of itself; nothing for any other file.

    Args:
        path: a readable file of weights.
    """
    metadata = read_metadata(path)
    return metadata if metadata.get("format") == FORMAT else {}


POSITIONS = "patch_embedding.position_embeddings"
MAY_BE_MISSING = ("norm.weight", "norm.bias")  # an encoder may end without a final norm
SHOWN = 5  # kinds of skipped keys in a line of the console


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
    resampled: Resampling | None = field(default=None)

    def __str__(self) -> str:
        """One line for the console."""
        text = (
            f"encoder loaded from {self.path}: {len(self.loaded)} keys loaded, "
            f"{len(self.skipped)} skipped{_in_brackets(_kinds(self.skipped))}, "
            f"{len(self.missing)} missing{_in_brackets(self.missing)}"
        )
        if self.resampled:
            text += f"; position embeddings resampled from {self.resampled[0]} patches to "
            text += f"{self.resampled[1]}"
        return text


def load_encoder(
    network: ChannelNetwork,
    path: str | os.PathLike[str],
    source_img_size: Sequence[int] | None = None,
) -> EncoderReport:
    """Load a pre-trained single-channel encoder into a network's shared one, in place.

    Args:
        network: the network whose encoder is filled; adapters, fusion and decoder stay as they are.
        path: ``.safetensors`` or a torch file that opens with ``weights_only=True``.
        source_img_size: input size in voxels that the file's position embeddings were made for;
            needed only when their grid is neither this network's nor a cube, and the file is not
            one of `save_encoder`'s, which say it themselves.

    Returns:
        Every key loaded, skipped and missing.

    Raises:
        ValueError: if the file has no encoder of the network's backbone or several, if its sizes
            differ from the network's, if a weight of the patch embedding or of a block is missing,
            has another shape, is no finite number or would be lost, or if the position embeddings
            cannot be resampled. The network is then as it was.
    """
    if isinstance(network.encoder, SwinEncoder):
        return _load_swin(network, path)
    source, skipped = vit_tensors(read_tensors(path), path)
    facts, targets = encoder_facts(path), _encoder_weights(network)
    ours = {**vit_sizes(targets), "attention heads": network.config["num_heads"]}
    check_sizes({**vit_sizes(source), **_heads(facts, path)}, ours, path)
    resampled = None
    if POSITIONS in source:
        check_weight(POSITIONS, source[POSITIONS], targets[POSITIONS], path)
        if source_img_size is None:
            source_img_size = _img_size(facts, path)
        grid = [size // PATCH_SIZE for size in network.encoder.img_size]
        positions, resampled = fit_positions(source[POSITIONS], grid, source_img_size, path)
        source[POSITIONS] = positions
    check_keys(source, targets, path, MAY_BE_MISSING)
    return _fill(targets, source, skipped, path, resampled)


def _load_swin(network: ChannelNetwork, path: str | os.PathLike[str]) -> EncoderReport:
    source, skipped = swin_tensors(read_tensors(path), path)
    targets = _encoder_weights(network)
    check_swin(source, targets, path)
    return _fill(targets, source, skipped, path)


def _fill(
    targets: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    skipped: list[str],
    path: str | os.PathLike[str],
    resampled: Resampling | None = None,
) -> EncoderReport:
    with torch.no_grad():
        for key in targets.keys() & source.keys():
            targets[key].copy_(source[key])
    skipped += [k for k in source if k not in targets]
    loaded, missing = [k for k in targets if k in source], [k for k in targets if k not in source]
    return EncoderReport(os.fspath(path), loaded, sorted(skipped), missing, resampled)


def _encoder_weights(network: ChannelNetwork) -> dict[str, nn.Parameter]:
    """The shared encoder's weights without adapters, by MONAI's names."""
    base = {id(p) for p in parameter_parts(network)["encoder"]}
    return {k: p for k, p in network.encoder.named_parameters() if id(p) in base}


def _heads(facts: dict[str, str], path: str | os.PathLike[str]) -> dict[str, Any]:
    if "num_heads" not in facts:
        return {}
    if not facts["num_heads"].isdecimal():
        raise ValueError(_wrong_fact("num_heads", facts, "a whole number", path))
    return {"attention heads": int(facts["num_heads"])}


def _img_size(facts: dict[str, str], path: str | os.PathLike[str]) -> list[int] | None:
    """The input size in voxels that an encoder file was made for, if it says so."""
    if "img_size" not in facts:
        return None
    size = re.fullmatch(r"\[(\d{1,6}), ?(\d{1,6}), ?(\d{1,6})\]", facts["img_size"])
    if size is None:
        raise ValueError(_wrong_fact("img_size", facts, "three whole numbers in brackets", path))
    return [int(voxels) for voxels in size.groups()]


def _wrong_fact(
    name: str, facts: dict[str, str], expected: str, path: str | os.PathLike[str]
) -> str:
    return (
        f"{path}: found {name} {facts[name][:40]!r} in its metadata; expected {expected}: copy the "
        "file again, or write it with save_encoder"
    )


def _kinds(keys: Sequence[str]) -> list[str]:
    """The modules that keys belong to, block numbers as ``*``, at most `SHOWN` of them."""
    numbered = (re.sub(r"\.\d+(?=\.)", ".*", key) for key in keys)
    kinds = list(dict.fromkeys(key.rpartition(".")[0] or key for key in numbered))
    more = [f"and {len(kinds) - SHOWN} more kinds"] if len(kinds) > SHOWN else []
    return kinds[:SHOWN] + more


def _in_brackets(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""
