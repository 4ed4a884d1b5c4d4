"""Files written whole or not at all, folders tried before work starts, one run to a folder.

A file is written as a draft in a hidden folder beside it, brought to the disk and then renamed.
Whoever writes a draft holds a lock on it that ends with the process, so that what a killed run
left behind can be told from what another process is writing.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no locks there
    fcntl = None  # type: ignore[assignment]

StrPath = str | os.PathLike[str]
DRAFT, LOCK = ".draft", ".lock"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FAILED = FULL | {errno.EIO, errno.EROFS, errno.ESTALE}
BLOCK = b"\0" * 65536
_held: dict[Path, int] = {}  # lock files of this process's runs, open for as long as it lives
_drafts: set[Path] = set()  # that this process is writing


@contextmanager
def whole_file(path: StrPath) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` when the block ends without an error.

    The draft is on the disk before it is renamed, and the rename before this returns.

    Args:
        path: the file to write; its folder is made if need be.

    Yields:
        A path in the same folder, with the same name, to write to. A block that is interrupted or
        fails leaves the old file as it was.

    Raises:
        ValueError: if the folder cannot be written or the disk is full.
    """
    target = Path(path)
    make_folder(target.parent)
    with _draft(target) as draft:
        try:
            yield draft
            _sync(draft)
            os.replace(draft, target)
            _sync(target.parent)
        except Exception as error:
            reason = _disk_error(error, draft)
            if reason is None:
                raise
            raise ValueError(
                f"{target}: found {_words(reason)} while it was written; the file that was there "
                "before, if any, is as it was: make room, or choose another folder, and start again"
            ) from error


def make_folder(folder: StrPath) -> None:
    """Make a folder and those above it, if need be.

    Args:
        folder: the folder.

    Raises:
        ValueError: if that is not possible.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_folder(folder, error) from error


def try_folder(folder: StrPath) -> None:
    """Make a folder, and try to write a file there.

    Args:
        folder: the folder.

    Raises:
        ValueError: if it cannot be made or written, or its disk is full.
    """
    make_folder(folder)
    with _draft(Path(folder) / "trial") as draft:
        try:
            draft.write_bytes(BLOCK)
            _sync(draft)
        except OSError as error:
            raise _no_folder(folder, error) from error


def remove_drafts(folder: StrPath) -> None:
    """Remove what killed processes left of files in a folder, and in the folders in it.

    Args:
        folder: the folder; drafts that a process is writing stay.
    """
    root = Path(folder)
    for draft in [*root.glob(f".*{DRAFT}"), *root.glob(f"*/.*{DRAFT}")]:
        try:
            held = _locked(draft / LOCK, inherited=True)
        except OSError:
            continue  # somebody is writing it, or has just finished
        shutil.rmtree(draft, ignore_errors=True)
        os.close(held)


def drop_drafts() -> None:
    """Remove what this process is writing, since it ends now."""
    for draft in list(_drafts):
        shutil.rmtree(draft, ignore_errors=True)


def hold_folder(folder: StrPath, flag: str) -> None:
    """Keep other runs out of a folder until this process ends, however it ends.

    The lock is the process's own: data workers do not inherit it, and a second run of the same
    process may have it too. Systems without locks go without.

    Args:
        folder: the folder, which exists.
        flag: the setting that names it, for the error.

    Raises:
        ValueError: if another process holds it.
    """
    path = Path(folder).resolve() / LOCK
    if path in _held:
        return
    try:
        _held[path] = _locked(path)
    except BlockingIOError as error:
        raise ValueError(
            f"{folder}: found another run at work in this folder, expected none; wait for it or "
            f"end it, or give another --{flag}"
        ) from error
    except OSError:
        return


def _locked(path: Path, inherited: bool = False) -> int:
    """Open a file and lock it; `inherited` locks hold within a process too (flock, not lockf)."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if fcntl is None:
        return file
    try:
        (fcntl.flock if inherited else fcntl.lockf)(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise BlockingIOError(error.errno, "locked", str(path)) from error
        raise
    return file


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Make a hidden folder for a draft of `target`, locked until the draft is gone."""
    try:
        folder = Path(tempfile.mkdtemp(DRAFT, f".{target.name[:99]}.", target.parent))
    except OSError as error:
        raise _no_folder(target.parent, error) from error
    try:
        held = _locked(folder / LOCK, inherited=True)
    except OSError:  # a system without locks
        held = None
    _drafts.add(folder)
    try:
        yield folder / target.name
    finally:
        _drafts.discard(folder)
        if held is not None:
            os.close(held)
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():  # Windows does not open folders
            return
        raise
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no fsync for folders
            raise
    finally:
        os.close(number)


def _disk_error(error: Exception, draft: Path) -> OSError | None:
    """Find out whether writing failed for the disk's sake: libraries tell it in their own ways."""
    if isinstance(error, OSError):
        return error if error.errno in FAILED else None
    if said := re.search(r"\(os error (\d+)\)", str(error)):  # as libraries in Rust word it
        return OSError(int(said[1]), os.strerror(int(said[1])))
    if isinstance(error, ValueError) or not draft.is_file():
        return None
    try:
        with draft.open("ab") as file:
            file.write(BLOCK)
            file.flush()
            os.fsync(file.fileno())
    except OSError as reason:
        return reason
    return None


def _no_folder(folder: StrPath, error: OSError) -> ValueError:
    return ValueError(
        f"{folder}: found {_words(error)}, expected a folder that can be made and written; give "
        "another one, or make room or the permission for this one"
    )


def _words(error: OSError) -> str:
    if error.errno in FULL:
        return "no space left"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return "a file in the place of a folder"
    return (error.strerror or str(error)).lower()


def take_folder(folder: str | os.PathLike[str], flag: str) -> None:
    """Make a folder this run's own: made, tried, locked, and rid of what dead runs left.

    Args:
        folder: the folder.
        flag: the setting that named it, for messages.

    Raises:
        ValueError: if it cannot be written, another run works in it, or its path cannot stand in a
            config.
    """
    if "::" in str(folder):
        raise ValueError(
            f"--{flag}: found {folder}, expected a path without # and ::, which MONAI's "
            "configs do not tell apart; give another folder, or a link to it"
        )
    try_folder(folder)
    hold_folder(folder, flag)
    remove_drafts(folder)
