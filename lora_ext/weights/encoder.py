"""Pre-trained single-channel encoders: read from any published layout, loaded, and written.

Nothing is skipped in silence: the report names every key. Two things leave no trace in a ViT's
tensors, its number of heads and what its norms add to the variance. A file's metadata may say them,
as those of `save_encoder` do; else they are assumed, and that is said.
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
from lora_ext.networks.swin_unetr import ChannelLoRASwinUNETR
from lora_ext.weights.layouts import POSITIONS, PREFIX, PlainViT, plain_vit
from lora_ext.weights.positions import Resampling, fit_positions
from lora_ext.weights.reading import read_metadata, read_tensors, record_inside
from lora_ext.weights.remote import local_file
from lora_ext.weights.sizes import ARGUMENTS, check_keys, check_sizes, vit_sizes
from lora_ext.weights.swin_layout import SwinFile, check_swin, holds_swin, swin_tensors

if TYPE_CHECKING:
    from lora_ext.networks.channel_network import ChannelNetwork


FORMAT = "lora_ext encoder 1"
SWIN = ChannelLoRASwinUNETR.backbone
FACTS = ("num_heads", "norm_eps", "img_size")  # what no tensor shows
HEAD_WIDTH = 64  # of nearly every published ViT
MAY_BE_MISSING = ("norm.weight", "norm.bias")  # an encoder may end without a final norm
SHOWN = 5  # kinds of skipped keys in a line of the console


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
    source = plain_vit(state, name).tensors
    sizes = vit_sizes(source)
    with torch.device("meta"):  # keys and shapes alone
        encoder = ChannelEncoder(
            ("volume",), img_size, hidden_size=sizes["hidden size"], num_layers=sizes["depth"],
            mlp_dim=sizes.get("MLP width", 1), num_heads=num_heads, qkv_bias=sizes["qkv bias"],
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


@dataclass(frozen=True)
class EncoderFile:
    """A pre-trained ViT in a file, and what it is.

    Attributes:
        path: the file, as it was named.
        vit: the ViT.
        said: constructor's arguments of `ChannelEncoder` that the file shows or says.
        assumed: those that it does not: its number of heads, unless its hidden size is no multiple
            of 64, and the norms' epsilon.
        img_size: input size in voxels that its positions were made for, if it says so.
    """

    path: str
    vit: PlainViT
    said: dict[str, Any]
    assumed: dict[str, Any]
    img_size: list[int] | None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `ChannelEncoder` to build it with."""
        return self.assumed | self.said

    @property
    def sizes(self) -> dict[str, Any]:
        """What the file shows or says, by the names of `lora_ext.weights.sizes.NOTES`."""
        said = {name: self.said[key] for name, key in ARGUMENTS.items() if key in self.said}
        return vit_sizes(self.vit.tensors) | said


def read_encoder(
    path: str | os.PathLike[str], backbone: str | None = None
) -> EncoderFile | SwinFile:
    """Read a pre-trained encoder of any layout that `plain_vit` or `swin_tensors` knows.

    Args:
        path: ``.safetensors``, a torch file that opens with ``weights_only=True``, or the address
            of one, see `local_file`.
        backbone: whose encoder to read; None for the one that is there.

    Raises:
        ValueError: if it cannot be read or holds no such encoder.
    """
    file = local_file(path)
    tensors = read_tensors(file)
    if backbone == SWIN or (backbone is None and holds_swin(tensors)):
        return SwinFile(os.fspath(path), *swin_tensors(tensors, path))
    vit = plain_vit(tensors, path)
    facts = encoder_facts(file) or _recorded_facts(tensors)
    sizes = vit_sizes(vit.tensors)
    said = {key: sizes[name] for name, key in ARGUMENTS.items() if name in sizes}
    said |= _heads(facts, path) | _eps(facts, path)
    assumed = {"norm_eps": vit.norm_eps}
    if said["hidden_size"] % HEAD_WIDTH == 0:
        assumed["num_heads"] = said["hidden_size"] // HEAD_WIDTH
    assumed = {key: value for key, value in assumed.items() if key not in said}
    return EncoderFile(os.fspath(path), vit, said, assumed, _img_size(facts, path))


def encoder_facts(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return what an encoder file says of itself; nothing for any other file.

    Args:
        path: a readable file of weights.
    """
    metadata = read_metadata(path)
    return metadata if metadata.get("format") == FORMAT else {}


def _recorded_facts(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What the record of one of our own models says of its encoder."""
    record = record_inside(tensors) or {}
    return {key: json.dumps(record[key]) for key in FACTS if key in record}


@dataclass(frozen=True)
class EncoderReport:
    """What `load_encoder` did with every key.

    Attributes:
        path: the file that was read.
        loaded: keys of the encoder that now hold the file's values.
        skipped: keys of the file that the encoder has no place for.
        missing: keys of the encoder that the file lacks; they keep their values.
        resampled: sizes of the position embeddings' grid, from and to, if it was resampled.
        assumed: what the network computes with and the file does not say, in words.
    """

    path: str
    loaded: list[str]
    skipped: list[str]
    missing: list[str]
    resampled: Resampling | None = field(default=None)
    assumed: list[str] = field(default_factory=list)

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
        if self.assumed:
            text += f"; not said by the file: {', '.join(self.assumed)}"
        return text


def load_encoder(
    network: ChannelNetwork,
    path: str | os.PathLike[str],
    source_img_size: Sequence[int] | None = None,
) -> EncoderReport:
    """Load a pre-trained single-channel encoder into a network's shared one, in place.

    `lora_ext.network_for_encoder` builds the network that fits a file.

    Args:
        network: the network whose encoder is filled; adapters, fusion and decoder stay as they are.
        path: see `read_encoder`.
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
    return fill_encoder(network, read_encoder(path, network.backbone), source_img_size)


def fill_encoder(
    network: ChannelNetwork,
    file: EncoderFile | SwinFile,
    source_img_size: Sequence[int] | None = None,
) -> EncoderReport:
    """Do what `load_encoder` does, with a file that was read."""
    path, targets = file.path, _encoder_weights(network)
    if isinstance(file, SwinFile):
        check_swin(file.tensors, targets, path)
        return _fill(targets, file.tensors, file.skipped, path)
    ours = {name: network.config[key] for name, key in ARGUMENTS.items()}
    check_sizes(file.sizes, vit_sizes(targets) | ours, path)
    source, resampled = _fitted(network, file, source_img_size or file.img_size)
    check_keys(source, targets, path, MAY_BE_MISSING)
    return _fill(targets, source, file.vit.skipped, path, resampled, _assumed(network, file))


def _fill(
    targets: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    skipped: list[str],
    path: str,
    resampled: Resampling | None = None,
    assumed: Sequence[str] = (),
) -> EncoderReport:
    with torch.no_grad():
        for key in targets.keys() & source.keys():
            targets[key].copy_(source[key])
    skipped = skipped + [k for k in source if k not in targets]
    loaded, missing = [k for k in targets if k in source], [k for k in targets if k not in source]
    return EncoderReport(path, loaded, sorted(skipped), missing, resampled, list(assumed))


def _fitted(
    network: ChannelNetwork, file: EncoderFile, source_img_size: Sequence[int] | None
) -> tuple[dict[str, Tensor], Resampling | None]:
    """The file's tensors, their positions on the network's grid and in its prefix tokens."""
    source = dict(file.vit.tensors)
    if POSITIONS not in source:
        return source, None  # `check_keys` says it
    positions, own = source[POSITIONS], network.encoder.get_parameter(POSITIONS)
    check_weight(POSITIONS, positions, own, file.path)
    grid = [size // PATCH_SIZE for size in network.encoder.img_size]
    first, source[POSITIONS], resampled = fit_positions(
        positions, grid, source_img_size, file.path, file.vit.leading
    )
    count = first.shape[1]
    if PREFIX in source and count:
        tokens = source[PREFIX]
        source[PREFIX] = torch.cat([tokens[:, :count] + first, tokens[:, count:]], dim=1)
    return source, resampled


def _assumed(network: ChannelNetwork, file: EncoderFile) -> list[str]:
    """What the network computes with and the file does not say."""
    words = {"num_heads": "{} attention heads", "norm_eps": "LayerNorm eps {}"}
    return [text.format(network.config[k]) for k, text in words.items() if k not in file.said]


def _encoder_weights(network: ChannelNetwork) -> dict[str, nn.Parameter]:
    """The shared encoder's weights without adapters, by MONAI's names."""
    base = {id(p) for p in parameter_parts(network)["encoder"]}
    return {k: p for k, p in network.encoder.named_parameters() if id(p) in base}


def _heads(facts: dict[str, str], path: str | os.PathLike[str]) -> dict[str, Any]:
    if "num_heads" not in facts:
        return {}
    if not facts["num_heads"].isdecimal():
        raise ValueError(_wrong_fact("num_heads", facts, "a whole number", path))
    return {"num_heads": int(facts["num_heads"])}


def _eps(facts: dict[str, str], path: str | os.PathLike[str]) -> dict[str, Any]:
    if "norm_eps" not in facts:
        return {}
    if not re.fullmatch(r"\d(\.\d+)?(e-\d{1,2})?", facts["norm_eps"]):
        raise ValueError(_wrong_fact("norm_eps", facts, "a number such as 1e-05", path))
    return {"norm_eps": float(facts["norm_eps"])}


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
