"""Adapter files: everything that was trained on top of a shared, frozen encoder.

An adapter file holds the adapters, the fusion and the decoder, and not the encoder, so it is a
fraction of the model's size; one encoder serves many tasks. The two only fit together, so the file
remembers a fingerprint of the encoder that it was trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor

from lora_ext.files import whole_file
from lora_ext.networks.config import few
from lora_ext.networks.regimes import REGIMES, parameter_parts
from lora_ext.weights.reading import check_weights, json_object, read_metadata, read_tensors

if TYPE_CHECKING:
    from lora_ext.networks.channel_network import ChannelNetwork


FORMAT = "lora_ext adapter 1"
# Settings that change what a network computes, and that its tensors do not show.
UNSEEN = {"lora_alpha", "lora_scaling", "num_heads", "norm_eps", "modalities"}


def encoder_fingerprint(network: ChannelNetwork) -> str:
    """SHA-256 over the shared encoder's weights, without adapters."""
    digest = hashlib.sha256()
    for parameter in parameter_parts(network)["encoder"]:
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def adapter_tensors(network: ChannelNetwork) -> dict[str, Tensor]:
    """Everything but the shared encoder, by the network's own keys."""
    base = {id(p) for p in parameter_parts(network)["encoder"]}
    return {k: p.detach() for k, p in network.named_parameters() if id(p) not in base}


def save_adapter(network: ChannelNetwork, path: str | os.PathLike[str]) -> None:
    """Write adapters, fusion and decoder to a ``.safetensors`` file, whole or not at all.

    Args:
        network: a network whose regime leaves the encoder as it was.
        path: the file to write.

    Raises:
        ValueError: if the regime trains the encoder, since the file could not restore it.
    """
    if "encoder" in REGIMES[network.regime].trained:
        raise ValueError(
            f"regime {network.regime!r} trains the encoder, which an adapter file does not hold; "
            "save the whole model, or use one of "
            f"{[k for k, r in REGIMES.items() if 'encoder' not in r.trained]}"
        )
    tensors = {k: v.cpu().contiguous() for k, v in adapter_tensors(network).items()}
    metadata = {
        "format": FORMAT,
        "network": json.dumps(network.config),
        "encoder_sha256": encoder_fingerprint(network),
    }
    with whole_file(path) as draft:
        safetensors.torch.save_file(tensors, draft, metadata=metadata)


def load_adapter(network: ChannelNetwork, path: str | os.PathLike[str]) -> None:
    """Load an adapter file into a network that has the encoder it was trained on, in place.

    Args:
        network: network of the same regime and sizes, its pre-trained encoder loaded already.
        path: a file that `save_adapter` wrote.

    Raises:
        ValueError: if it cannot be read, is no adapter file, was made for another encoder, does
            not fit, or holds what is no weight; the network is then as it was.
    """
    tensors, metadata = read_tensors(path), read_metadata(path)
    targets = adapter_tensors(network)
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path}: not an adapter file; its format is {metadata.get('format')!r}, expected "
            f"{FORMAT!r}: give the adapter.safetensors of a training"
        )
    made = json_object(metadata.get("network", ""), f"{path}, its metadata")
    _check_made_for(network, made, _fits(tensors, targets), path)
    if metadata.get("encoder_sha256") != encoder_fingerprint(network):
        raise ValueError(
            f"{path}: trained on another encoder than this network holds; load that encoder first"
        )
    check_weights(tensors, targets, path)
    with torch.no_grad():
        for key, target in targets.items():
            target.copy_(tensors[key])


def _check_made_for(
    network: ChannelNetwork, made: Mapping[str, Any], fits: bool, path: str | os.PathLike[str]
) -> None:
    """Refuse the adapters of a network that was built otherwise, its settings in the message."""
    adapters = REGIMES[network.regime].adapters
    wrong = {k: v for k, v in made.items() if k != "encoder" and network.config.get(k) != v}
    unseen = {k for k in wrong if k in UNSEEN and (adapters or not k.startswith("lora_"))}
    if unseen or not fits:
        shown = few([f"{k} {v!r}" for k, v in wrong.items() if not fits or k in unseen])
        raise ValueError(
            f"{path}: made for a network with {shown or 'other tensors'}; this one differs there, "
            "so build it with the settings that the adapters were trained with"
        )


def _fits(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> bool:
    shapes = {key: target.shape for key, target in targets.items()}
    return {key: tensor.shape for key, tensor in tensors.items()} == shapes
