"""SIGTERM and Ctrl-C: one line that says where a run was stopped and which command goes on."""

from __future__ import annotations

import multiprocessing
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from ignite.engine import Engine

from lora_ext.files import drop_drafts

PROGRAM = "monai.bundle"
FLAG = re.compile(r"--(resume|overwrite)(=|$)")
_running: list[Engine] = []  # the engine whose progress is told


def end_by_signals(resume: bool | None = None) -> None:
    """From now on, let SIGTERM and Ctrl-C end a run of ``python -m monai.bundle`` with one line.

    A write in hand is dropped, the draft with it. Other programs that run a bundle (a notebook,
    MONAI Label) keep their own handling of signals.

    Args:
        resume: the run's ``resume``; None where there is nothing to resume.
    """
    program = getattr(sys.modules["__main__"], "__spec__", None)
    if program is None or program.name != f"{PROGRAM}.__main__":
        return
    if threading.current_thread() is not threading.main_thread():
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a data worker, which ends with the process that started it
            return
        if os.environ.get("RANK", "0") == "0":
            line = f"stopped{_place()}; {go_on(sys.argv[1:], resume is not None)}"
            os.write(sys.stderr.fileno(), f"\n{line}\n".encode())  # print() is not re-entrant
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's own raises when a worker dies
        for worker in multiprocessing.active_children():
            worker.kill()
        drop_drafts()
        # At once: an exception would be logged by the engines, or get lost where Python ignores
        # exceptions, and there is nothing to unwind: files are renamed when they are whole.
        os._exit(128 + number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)


def tell_progress_of(engine: Engine) -> None:
    """Name the engine whose epoch or case the line tells.

    Args:
        engine: a trainer, or the evaluator of an evaluation or inference.
    """
    _running[:] = [engine]


def go_on(arguments: Sequence[str], resumable: bool) -> str:
    """Word the command that goes on.

    Args:
        arguments: those of the command that was stopped.
        resumable: whether it takes ``--resume True``.
    """
    kept, words = [], list(arguments)
    while words:
        word = words.pop(0)
        if not resumable or not FLAG.match(word):
            kept.append(word)
        elif "=" not in word and words and not words[0].startswith("--"):
            words.pop(0)  # its value
    launcher = "torchrun ..." if "TORCHELASTIC_RUN_ID" in os.environ else "python"
    command = shlex.join(["-m", PROGRAM, *kept, *(["--resume", "True"] if resumable else [])])
    return f"{'go on' if resumable else 'start again'} with: {launcher} {command}"


def _place() -> str:
    if not _running or _running[0].state.epoch == 0:
        return " before the first step"
    state = _running[0].state
    if state.max_epochs == 1:
        return f" at step {state.iteration} of {state.epoch_length}"
    return f" in epoch {state.epoch} of {state.max_epochs}"
