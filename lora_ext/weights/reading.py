"""Reading tensors from a checkpoint file, without running anything that is in it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

WRAPPERS = ("state_dict", "model", "network", "module", "encoder", "teacher", "student")


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a flat dictionary of tensors from ``.safetensors`` or a torch file, on the CPU.

    A torch file is opened with ``weights_only=True``. Outer dictionaries such as ``state_dict`` or
    ``model`` are opened; entries that are not tensors (epoch, optimizer) are dropped.

    Raises:
        ValueError: if the file is missing, cannot be read safely, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such weights file")
    try:
        content: Any = (
            safetensors.torch.load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path}: not a readable .safetensors or weights-only torch file ({reason})"
        ) from error
    tensors = _flat_tensors(content)
    if not tensors:
        raise ValueError(f"{path}: holds no tensors, nor a dictionary of them under {WRAPPERS}")
    return tensors


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the text that a readable ``.safetensors`` file says of itself; none in other files."""
    if Path(path).suffix != ".safetensors":
        return {}
    with safetensors.safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _flat_tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        return {}
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if tensors:
        return tensors
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            return _flat_tensors(content[wrapper])
    return {}
