"""Writing files whole or not at all: into a temporary name in the same folder, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` when the block ends without an error.

    Args:
        path: the file to write; its folder is made if need be.

    Yields:
        A path in the same folder, with the same suffixes, to write to. A block that is interrupted
        or fails leaves the old file as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.")
    draft = Path(folder) / target.name
    try:
        yield draft
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
        os.rmdir(folder)
