"""The record of a model: all that it takes to use it and to judge it.

``model.pt`` carries it inside, ``network.json`` beside it is a copy for people, and an adapter file
has it in its header. It holds the constructor's arguments of the network (`networks.config`), the
settings that images were prepared with, which cases were trained on and how, and the versions. It
is data: nothing in it is ever evaluated, and each of its settings is checked when it is read.
"""

from __future__ import annotations

import glob
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lora_ext.weights.reading import read_json, record_inside

MODEL, COPY = "model.pt", "network.json"
# What models of one ensemble may differ in: they are folds or repetitions of one training.
FOLD = {"fold", "seed", "training_cases", "trained_on", "seen_in_training"}

Folders = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def model_folders(ckpt_dir: Folders) -> list[Path]:
    """List the folders of the models that a run uses.

    Args:
        ckpt_dir: a folder, several of them, or a pattern such as ``models/fold*``. What exists
            under its own name is no pattern.

    Returns:
        The folders, as given or sorted by name; whether they hold a model is not looked at.

    Raises:
        ValueError: if a pattern matches no folder, or a folder is given twice.
    """
    if not isinstance(ckpt_dir, (str, os.PathLike)):
        folders = [folder for one in ckpt_dir for folder in model_folders(one)]
        twice = {str(folder) for folder in folders if folders.count(folder) > 1}
        if twice:
            raise ValueError(f"ckpt_dir: found {', '.join(sorted(twice))} twice, expected it once")
        return folders
    text = os.fspath(ckpt_dir)
    if not glob.has_magic(text) or os.path.exists(text):
        return [Path(text)]
    found = [Path(path) for path in sorted(glob.glob(text)) if os.path.isdir(path)]
    if not found:
        raise ValueError(f"ckpt_dir: found no folder like {text}, expected those of trained models")
    return found


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


def trained_settings(ckpt_dir: Folders, default: Mapping[str, Any]) -> dict[str, Any]:
    """Look up the settings that a model must be used with.

    Args:
        ckpt_dir: folder of ``model.pt``, or those of an ensemble, see `model_folders`.
        default: the settings of a model without a record, and of the bundle where there is none.

    Returns:
        The settings by name, those of `default` alone.

    Raises:
        ValueError: see `recorded_settings`.
    """
    return {**default, **recorded_settings(ckpt_dir, default)}


def recorded_settings(ckpt_dir: Folders, names: Iterable[str]) -> dict[str, Any]:
    """Look up what the record of a model says of some settings.

    Args:
        ckpt_dir: folder of ``model.pt``, or those of an ensemble, see `model_folders`.
        names: names of settings.

    Returns:
        The settings by name; those that the record does not say are left out. Of an ensemble, what
        the record of its first model says.

    Raises:
        ValueError: see `read_record` and `model_folders`, or records of an ensemble that differ in
            more than fold, seed and cases.
    """
    first, *others = model_folders(ckpt_dir)
    record = read_record(first / MODEL)
    for other in others:
        _check_agreement(other, read_record(other / MODEL), first, record)
    named = {"roi_size": record["img_size"], **record} if "img_size" in record else record
    if "regime" in named:  # models that do not say it are of a time when all images were MR
        named = {"intensity": "mr", **named}
    return {name: named[name] for name in names if name in named}


def _check_agreement(
    other: Path, found: Mapping[str, Any], first: Path, expected: Mapping[str, Any]
) -> None:
    keys = (found.keys() | expected.keys()) - FOLD
    wrong = sorted(key for key in keys if found.get(key) != expected.get(key))
    if wrong:
        key, more = wrong[0], f" (and {len(wrong) - 1} more that differ)" if wrong[1:] else ""
        raise ValueError(
            f"{other}: found a model with {key} {found.get(key)!r}, expected "
            f"{expected.get(key)!r} as in {first}{more}: models of an ensemble agree in everything "
            "but fold, seed and cases; leave one of them out of --ckpt_dir"
        )
