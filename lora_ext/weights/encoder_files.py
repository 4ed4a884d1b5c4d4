"""Encoder files: a pre-trained single-channel ViT on its own, as `load_encoder` takes it.

A state dict does not show a ViT's number of heads, nor which grid its position embeddings were
made for, so the file's metadata says both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

import safetensors.torch
import torch
from torch import Tensor

from lora_ext.encoder import ChannelEncoder
from lora_ext.files import whole_file
from lora_ext.weights.reading import read_metadata
from lora_ext.weights.vit_keys import check_keys, vit_tensors
from lora_ext.weights.vit_sizes import check_sizes, vit_sizes

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
        path: the ``.safetensors`` file to write, with the keys of `lora_ext.encoder`.
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
