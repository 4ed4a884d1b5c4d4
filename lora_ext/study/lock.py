"""One study at a time per folder, the runs that a killed study left behind included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_study(out: Path) -> Iterator[list[int]]:
    """Hold the study's folder.

    The lock is the system's (``flock``) and is passed on to the child processes, so that it ends
    with the last of them and never has to be cleaned up. Systems without it go without.

    Args:
        out: the study's folder.

    Yields:
        The file descriptors that child processes must inherit.

    Raises:
        ValueError: if another study, or a run that one left behind, is at work in the folder.
    """
    try:
        import fcntl
    except ImportError:
        yield []
        return
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{out}: another study, or a run that it left behind, is at work in this folder; "
                "wait for it or end it"
            ) from error
        yield [file.fileno()]
