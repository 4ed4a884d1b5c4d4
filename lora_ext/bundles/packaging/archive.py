"""A zip file whose bytes depend on its contents alone."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from lora_ext.files import whole_file

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name
MODE = 0o100644 << 16  # an ordinary file that everyone may read
UNIX = 3
PACKED = (".pt", ".safetensors")  # weights hardly shrink and take long


def write_archive(path: str | os.PathLike[str], entries: Mapping[str, bytes | Path]) -> None:
    """Write a zip file, whole or not at all; the same entries give the same bytes.

    Args:
        path: the file to write.
        entries: contents, or a file that holds them, by name in the archive.
    """
    with whole_file(path) as draft, zipfile.ZipFile(draft, "w") as archive:
        for name, content in sorted(entries.items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = UNIX, MODE
            if not name.endswith(PACKED):
                entry.compress_type = zipfile.ZIP_DEFLATED
            with _opened(content) as source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)


def _opened(content: bytes | Path) -> io.BufferedIOBase:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
