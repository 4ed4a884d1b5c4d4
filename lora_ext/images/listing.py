"""Folders listed: without the hidden files that file browsers leave, and with linked folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def entries(folder: str | os.PathLike[str]) -> list[Path]:
    """List what lies in a folder.

    Args:
        folder: an existing folder.

    Returns:
        Files and folders, sorted by name, without hidden ones (``._a.nii``, ``.DS_Store``).
    """
    return sorted(path for path in Path(folder).iterdir() if not path.name.startswith("."))


def files_below(folder: str | os.PathLike[str]) -> list[Path]:
    """List the files in a folder and below it, in linked folders too.

    Args:
        folder: any folder.

    Returns:
        The files, sorted, without hidden ones and those in hidden folders. A folder that is linked
        several times, or into itself, counts once.
    """
    seen = {os.path.realpath(folder)}
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        visible = sorted(name for name in folders if not name.startswith("."))
        folders.clear()
        for name in visible:
            real = os.path.realpath(os.path.join(place, name))
            folders += [] if real in seen else [name]
            seen.add(real)
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)


def listed(names: Sequence[str]) -> str:
    """Name the first four, and say how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def counted(count: int, thing: str) -> str:
    """Say how many things there are: 1 voxel, 2 voxels."""
    return f"{count} {thing}{'' if count == 1 else 's'}"
