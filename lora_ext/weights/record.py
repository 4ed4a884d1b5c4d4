"""The record of a model: all that it takes to use it and to judge it.

``model.pt`` carries it inside, ``network.json`` beside it is a copy for people, and an adapter file
has it in its header. It holds the constructor's arguments of the network (`networks.config`), the
settings that images were prepared with, which cases were trained on and how, and the versions. It
is data: nothing in it is ever evaluated, and each of its settings is checked when it is read.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from lora_ext.weights.reading import read_json, record_inside

MODEL, COPY = "model.pt", "network.json"


def read_record(model: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the record of a model.

    Args:
        model: a ``model.pt``. Its own record counts; ``network.json`` beside it is read where it
            has none.

    Returns:
        The record; empty where there is no file, or none that says anything. A damaged
        ``model.pt`` says nothing here; loading it will tell.

    Raises:
        ValueError: if ``network.json`` is no JSON object.
    """
    path = Path(model)
    own, copy = _own_record(path), path.with_name(COPY)
    if own is None and path.is_file() and copy.is_file():
        own = read_json(copy)
    return own or {}


def _own_record(path: Path) -> dict[str, Any] | None:
    """Read the record inside a model without reading its tensors."""
    try:
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception:  # what a damaged pickle can raise is any
        return None
    record = record_inside(state)
    return dict(record) if isinstance(record, Mapping) else None


def trained_settings(
    ckpt_dir: str | os.PathLike[str], default: Mapping[str, Any]
) -> dict[str, Any]:
    """Look up the settings that a model must be used with.

    Args:
        ckpt_dir: folder of ``model.pt``.
        default: the settings of a model without a record, and of the bundle where there is none.

    Returns:
        The settings by name, those of `default` alone.

    Raises:
        ValueError: see `read_record`.
    """
    return {**default, **recorded_settings(ckpt_dir, default)}


def recorded_settings(ckpt_dir: str | os.PathLike[str], names: Iterable[str]) -> dict[str, Any]:
    """Look up what the record of a model says of some settings.

    Args:
        ckpt_dir: folder of ``model.pt``.
        names: names of settings.

    Returns:
        The settings by name; those that the record does not say are left out.

    Raises:
        ValueError: see `read_record`.
    """
    record = read_record(Path(ckpt_dir) / MODEL)
    named = {"roi_size": record["img_size"], **record} if "img_size" in record else record
    if "regime" in named:  # models that do not say it are of a time when all images were MR
        named = {"intensity": "mr", **named}
    return {name: named[name] for name in names if name in named}
