"""Whole models: ``model.pt``, a flat state dict, and what the network was built with.

The latter is written to ``network.json`` beside it and into the file itself (`networks.config`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lora_ext.files import whole_file
from lora_ext.networks.config import few, keep_record, misfit, with_record
from lora_ext.weights.reading import check_weights, read_json, read_tensors, record_inside
from lora_ext.weights.record import COPY


class Configured(Protocol):
    """A network that says what it was built with: ours, an auto-encoder, a reference network."""

    config: dict[str, Any]

    def state_dict(self) -> Any:
        """As `torch.nn.Module.state_dict`."""

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Any:
        """As `torch.nn.Module.load_state_dict`."""


def save_model(network: Configured, path: str | os.PathLike[str]) -> None:
    """Write a complete, flat state dict, and ``network.json`` beside it.

    Args:
        network: the network to save.
        path: the file to write, loadable with ``weights_only=True`` and ``strict=True``.
    """
    with whole_file(Path(path).with_name(COPY)) as draft:
        draft.write_text(json.dumps(network.config, indent=2) + "\n", encoding="utf-8")
    with whole_file(path) as draft:
        tensors = {k: v.cpu() for k, v in network.state_dict().items()}
        torch.save(with_record(tensors, network.config), draft)


def load_model(network: Configured, path: str | os.PathLike[str]) -> None:
    """Load a whole model into a network, in place, every key of it.

    Args:
        network: a network built with the same sizes.
        path: a file that `save_model` or MONAI's ``CheckpointSaver`` wrote.

    Raises:
        ValueError: if the file cannot be read, holds what is no weight, or was made by a network
            built otherwise; the message then lists the flags to pass. The network is then as it
            was.
    """
    if not Path(path).exists():
        raise ValueError(f"{path}: no trained model there; run 'training' first, or set ckpt_dir")
    tensors = read_tensors(path)
    beside = Path(path).with_name(COPY)
    records = [record_inside(tensors), read_json(beside) if beside.is_file() else None]
    for made in filter(None, records):
        found = misfit(made, network.config)
        if found is not None:
            raise ValueError(f"{path}: {found}")
    targets = network.state_dict()
    _check_names(tensors, targets, path)
    check_weights(tensors, targets, path)
    network.load_state_dict(tensors, strict=True)
    keep_record(network.config, next(filter(None, records), {}))


def _check_names(
    tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> None:
    lacking, foreign = sorted(targets.keys() - tensors.keys()), sorted(tensors.keys() - targets)
    if lacking or foreign:
        wrong = [f"lacks {few(lacking)}"] * bool(lacking) + [f"has {few(foreign)}"] * bool(foreign)
        raise ValueError(
            f"{path}: does not fit this network: it {', and '.join(wrong)}; give the model of this "
            "bundle, and the settings that it was trained with"
        )
