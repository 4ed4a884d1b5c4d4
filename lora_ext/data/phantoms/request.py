"""What was asked for: checks the arguments of a phantom and compares them with a folder's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SMALLEST_SIDE = 16


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def parse_size(size: str | Sequence[int]) -> tuple[int, int, int]:
    """Read an image size.

    Args:
        size: three integers, or a string such as "128,128,48".

    Returns:
        Image size in voxels.

    Raises:
        ValueError: the size is not three integers of at least 16.
    """
    parts: Any = size
    if isinstance(size, str):
        words = [word.strip() for word in size.strip("()[] ").split(",")]
        parts = [int(word) if word.isdecimal() else word for word in words]
    is_list = isinstance(parts, (tuple, list)) and len(parts) == 3
    if not is_list or not all(_is_int(n) and n >= SMALLEST_SIDE for n in parts):
        raise ValueError(
            f"size: found {size!r}; allowed are three integers of at least {SMALLEST_SIDE}, "
            "such as 128,128,48"
        )
    return parts[0], parts[1], parts[2]


def check_count(name: str, value: object, least: int) -> int:
    """Check an integer argument.

    Args:
        name: name of the argument, for the message.
        value: what was given.
        least: smallest value allowed.

    Returns:
        The value.

    Raises:
        ValueError: the value is no integer or too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: found {value!r}; allowed is an integer of at least {least}")
    return value


def _written_request(folder: Path) -> tuple[Any, list[str]]:
    """Return the request a folder was written for (None: not a phantom) and the files it lists."""
    try:
        listing = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        files = [*listing["test"], *(f for pair in listing["training"] for f in pair.values())]
        return listing["phantom"], files
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, []


def is_done(folder: Path, request: dict[str, Any]) -> bool:
    """Tell whether a folder already holds the phantom asked for.

    Args:
        folder: where the phantom is to be written.
        request: the arguments of the phantom, as stored under "phantom" in dataset.json.

    Returns:
        True when the folder holds this very phantom, False when the place is free (no such folder,
        or an empty one).

    Raises:
        ValueError: the place is a file, or a folder that holds anything else.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise ValueError(f"{folder}: found a file; allowed is a new or an empty folder")
    if not any(folder.iterdir()):
        return False
    found, files = _written_request(folder)
    if found is None:
        raise ValueError(
            f"{folder}: found a folder with other files; allowed is a new or an empty folder"
        )
    if found != request:
        raise ValueError(
            f"{folder}: found a phantom of {found}; allowed is a new or an empty folder, or one "
            f"of the same request, {request}"
        )
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder}: found the phantom asked for without {missing[0]}; allowed is a whole one "
            "or a new or an empty folder"
        )
    return True
