"""One child process: its output goes to a log, and its lines to whoever watches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from lora_ext.study.commands import MONAI_BUNDLE

LAUNCHER = (sys.executable, "-m", "monai.bundle")
POLL_SECONDS = 0.5
GRACE_SECONDS = 10.0  # between asking a child to end and ending it


def run_process(
    argv: Sequence[str],
    log: Path,
    watch: Callable[[str], None],
    *,
    append: bool = False,
    keep_open: Sequence[int] = (),
) -> int:
    """Run a command line of `commands` to its end.

    However this function is left, the child has ended.

    Args:
        argv: the command line.
        log: file for the child's output and errors.
        watch: called with every finished line of the log, soon after it was written.
        append: go on in an existing log.
        keep_open: file descriptors that the child inherits.

    Returns:
        The child's exit status.
    """
    launched = [*LAUNCHER, *argv[len(MONAI_BUNDLE) :]]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab" if append else "wb") as sink, log.open(errors="replace") as source:
        source.seek(0, 2)
        child = subprocess.Popen(
            launched,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(keep_open),
        )
        try:
            return _follow(child, _lines(source), watch)
        finally:
            _end(child)


def _follow(
    child: subprocess.Popen, lines: Iterator[str | None], watch: Callable[[str], None]
) -> int:
    while True:
        try:
            status = child.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        for line in iter(lambda: next(lines), None):
            watch(line)
        if status is not None:
            return status


def _lines(source: TextIO) -> Iterator[str | None]:
    """Whole lines as they appear; None whenever there is no further one yet."""
    begun = ""
    while True:
        begun += source.readline()
        if begun.endswith("\n"):
            yield begun.rstrip("\n")
            begun = ""
        else:
            yield None


def _end(child: subprocess.Popen) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
