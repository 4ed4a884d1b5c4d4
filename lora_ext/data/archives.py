"""Archives that come from elsewhere: their checksum, the room they need, safe extraction."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

CHUNK = 1 << 16  # bytes read at a time
HIDDEN = ("._", "__MACOSX")  # what macOS adds to an archive
BAR: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "mininterval": 0.5}


def check_md5(archive: Path, expected: str, source: str) -> None:
    """Compare a file's checksum with the published one; a file that differs is removed.

    Args:
        archive: the file.
        expected: MD5 as 32 hexadecimal digits.
        source: where the file came from, for the message.

    Raises:
        ValueError: the checksum differs.
    """
    digest = hashlib.md5(usedforsecurity=False)
    size = archive.stat().st_size
    with (
        archive.open("rb") as file,
        tqdm(total=size, desc=f"checking {archive.name}", **BAR) as bar,
    ):
        while block := file.read(CHUNK):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() != expected:
        archive.unlink()
        raise ValueError(
            f"{source}: found a file of {size} bytes with MD5 {digest.hexdigest()}; allowed is "
            f"MD5 {expected}; the file is removed, so that the next download starts clean"
        )


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Check that a disk has room.

    Args:
        folder: a folder on the disk.
        needed: bytes that will be written.
        purpose: what they are, for the message.

    Raises:
        ValueError: fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"{folder}: found {_readable(free)} of free disk space; {purpose} needs "
            f"{_readable(needed)}"
        )


def extract_folder(
    archive: Path, folder: Path, *, check: Callable[[Path], object] = lambda _: None
) -> None:
    """Extract the one folder of a tar archive, whole or not at all.

    Every member's name and kind is checked before the first byte is written; only files and
    folders are let through, since a link is what tricks extraction filters. Files that macOS adds
    are left out. The members go into a hidden folder beside `folder`, which is then renamed.

    Args:
        archive: a tar archive that holds a folder of `folder`'s name.
        folder: the folder to make; it must be absent or empty.
        check: is called with the extracted folder before the renaming; may raise.

    Raises:
        ValueError: the archive is no tar file, is cut off, has a member that would leave `folder`'s
            parent, a link or a device, or lacks the folder; or the disk is too small.
    """
    draft = folder.with_name(f".{folder.name}.extracting")
    shutil.rmtree(draft, ignore_errors=True)  # left by a killed run
    draft.mkdir(parents=True)
    try:
        with tarfile.open(archive) as tar:
            members = _safe_members(tar, archive)
            size = sum(member.size for member in members)
            check_space(draft.parent, size, f"extracting {archive.name}")
            _write(tar, members, draft, tqdm(total=size, desc=f"extracting {archive.name}", **BAR))
        if not (draft / folder.name).is_dir():
            raise ValueError(f"{archive}: found no folder {folder.name}; the archive must hold it")
        check(draft / folder.name)
        (draft / folder.name).replace(folder)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{archive}: found no sound tar archive ({error})") from error
    finally:
        shutil.rmtree(draft)


def _write(tar: tarfile.TarFile, members: list[tarfile.TarInfo], draft: Path, bar: tqdm) -> None:
    # Python's own filter as a second lock; patch releases before June 2023 lack it.
    tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
    with bar:
        for member in members:
            tar.extract(member, draft)
            bar.update(member.size)


def _safe_members(tar: tarfile.TarFile, archive: Path) -> list[tarfile.TarInfo]:
    members = tar.getmembers()
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            found, allowed = "a path that leaves the folder", "paths inside it"
        elif not (member.isfile() or member.isdir()):
            target = f" to {member.linkname}" if member.issym() or member.islnk() else ""
            found, allowed = f"a link or device{target}", "files and folders"
        else:
            continue
        raise ValueError(f"{archive}: found the member {member.name!r}, {found}; allowed {allowed}")
    return [
        member
        for member in members
        if not any(part.startswith(HIDDEN) for part in PurePosixPath(member.name).parts)
    ]


def _readable(size: int) -> str:
    return tqdm.format_sizeof(size, "B", 1024)
