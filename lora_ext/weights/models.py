"""Whole models: ``model.pt``, a flat state dict, and beside it what the network was built with.

Two networks of different ``num_heads`` or ``lora_alpha`` have the same keys and shapes, so a state
dict alone cannot tell that it was loaded into the wrong one. ``network.json`` can.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

import torch

from lora_ext.files import whole_file
from lora_ext.weights.reading import read_tensors

# Constructor arguments that are knobs of other names in a bundle.
KNOBS = {"img_size": "roi_size", "in_channels": "modalities", "out_channels": "regions"}
# What can differ between training and use without changing what the network computes.
FREE = ("regime", "modality_dropout", "modalities")


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
    with whole_file(Path(path).with_name("network.json")) as draft:
        draft.write_text(json.dumps(network.config, indent=2) + "\n", encoding="utf-8")
    with whole_file(path) as draft:
        torch.save({k: v.cpu() for k, v in network.state_dict().items()}, draft)


def load_model(network: Configured, path: str | os.PathLike[str]) -> None:
    """Load a whole model into a network, in place, every key of it.

    Args:
        network: a network built with the same sizes.
        path: a file that `save_model` or MONAI's ``CheckpointSaver`` wrote.

    Raises:
        ValueError: if the file is missing, or was made by a network built otherwise; the message
            then lists the flags to pass.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no trained model there; run 'training' first, or set ckpt_dir")
    tensors = read_tensors(path)
    record = Path(path).with_name("network.json")
    if record.is_file():
        _check_record(json.loads(record.read_text(encoding="utf-8")), network, path)
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise ValueError(
            f"{path}: does not fit this network, which has {network.config}: {' '.join(lines)}"
        ) from error


def _check_record(made: dict, network: Configured, path: str | os.PathLike[str]) -> None:
    ours = json.loads(json.dumps(network.config))
    if "lora_rank" in made:
        made.setdefault("lora_scaling", "rank_stabilised")  # records of before there was a choice
    adapters = made.get("regime") == "lora" or ours.get("regime") == "lora"
    names = [k for k in made if k not in FREE and (adapters or not k.startswith("lora_"))]
    wrong = [k for k in names if made[k] != ours.get(k)]
    if made.get("modalities") != ours.get("modalities"):
        wrong.append("modalities")
    if wrong:
        flags = " ".join(f'--{KNOBS.get(k, k)} "{made[k]}"' for k in wrong)
        found = ", ".join(f"{k}={ours.get(k)}" for k in wrong)
        raise ValueError(
            f"{path}: was trained with other settings than this network's ({found}); pass {flags}"
        )
