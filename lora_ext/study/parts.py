"""Runs in one folder or in several, one after the other: what `study` and `ablation` share."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lora_ext.study.locate import find_bundles
from lora_ext.study.lock import only_study
from lora_ext.study.plan import Run
from lora_ext.study.pretrained import check_pretrained
from lora_ext.study.progress import StudyProgress
from lora_ext.study.results import write_results
from lora_ext.study.run import check_settings, execute, finished

STOPPED = 130  # exit status of a program that Ctrl-C ended


@dataclass(frozen=True)
class Part:
    """Runs with the same settings, in a folder of their own.

    Attributes:
        folder: ``runs/`` and ``results.json`` go there.
        runs: what to run.
        name: shown in the console before a run's name; empty where there is one part only.
    """

    folder: Path
    runs: Sequence[Run]
    name: str = ""


def run_parts(parts: Sequence[Part], root: Path, command: str) -> list[dict[str, Any]]:
    """Run what is unfinished of all parts, their first runs first, and write their results.

    Exits with 130 if it was stopped; the same call then goes on.

    Args:
        parts: one or more; their folders are `root` or lie in it.
        root: the folder that is locked meanwhile.
        command: the command line, for the results.

    Returns:
        The content of each part's results.json.

    Raises:
        ValueError: before anything is run: for a folder that holds runs with other settings, for a
            pre-trained encoder that is needed and missing, and if another study is at work in
            `root`.
    """
    for part in parts:
        check_settings(part.runs, part.folder)
    open_runs = [(part, run) for part, run in _in_turn(parts) if not finished(run, part.folder)]
    check_pretrained([run for _, run in open_runs])
    try:
        with only_study(root) as keep_open, _ended_by_signals():
            total = sum(len(part.runs) for part in parts)
            progress = StudyProgress(total, total - len(open_runs))
            _run_all(open_runs, root, command, progress, keep_open)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(STOPPED)
    return [write_results(part.folder, command) for part in parts]


def exit_if_failed(parts: Sequence[Part], results: Sequence[dict[str, Any]]) -> None:
    """Name the runs that failed, each with its error, and exit with 1 if there are any.

    Args:
        parts: what was run.
        results: the content of each part's results.json.
    """
    failed = [
        (part.folder / record["folder"], record["error"])
        for part, own in zip(parts, results, strict=True)
        for record in own["runs"]
        if record["status"] == "failed"
    ]
    for folder, error in failed:
        print(f"failed: {folder}; the same command tries it again\n{error}", file=sys.stderr)
    if failed:
        sys.exit(1)


def _in_turn(parts: Sequence[Part]) -> list[tuple[Part, Run]]:
    """Every part's first run, then every part's second: an early stop leaves whole tables."""
    rounds = zip_longest(*(part.runs for part in parts))
    return [
        (part, run)
        for turn in rounds
        for part, run in zip(parts, turn, strict=True)
        if run is not None
    ]


def _run_all(
    open_runs: Sequence[tuple[Part, Run]],
    root: Path,
    command: str,
    progress: StudyProgress,
    keep_open: Sequence[int],
) -> None:
    bundles = find_bundles([run.bundle for _, run in open_runs], root)
    try:
        for part, run in open_runs:
            progress.begin(run, part.name)
            record = execute(run, bundles, part.folder, progress.follow, keep_open, root)
            write_results(part.folder, command)
            progress.end(record)
    finally:
        progress.close()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the study as Ctrl-C does, so that it takes its child along."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
