"""``python -m lora_ext study``: run what is unfinished, then write the tables and plots."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_ext.study.commands import as_word
from lora_ext.study.locate import find_bundles
from lora_ext.study.lock import only_study
from lora_ext.study.plan import Run, plan_runs
from lora_ext.study.progress import StudyProgress
from lora_ext.study.results import write_results
from lora_ext.study.run import check_settings, execute, finished

OWN_FLAGS = ("bundles", "seeds", "folds", "reference")
STOPPED = 130  # exit status of a program that Ctrl-C ended


def run_study(
    data_dir: str,
    out: str,
    bundles: Any = None,
    seeds: Any = 0,
    folds: Any = 0,
    reference: Any = None,
    **knobs: Any,
) -> None:
    """Train and evaluate bundles as a user would, and write tables and plots of all of them.

    The same call again skips what is finished and goes on with what was stopped. Exits with 1 if a
    run failed and with 130 if it was stopped.

    Args:
        data_dir: one task folder, or a folder that holds task folders.
        out: the study's folder.
        bundles: names of bundles, by default all whose data set is there.
        seeds: one or more seeds, each of the run and of its split into folds.
        folds: one or more folds.
        reference: names of reference networks, each run once per data set.
        **knobs: other top-level settings of ``train.json``.

    Raises:
        ValueError: for an unknown name, data that is not found, or a folder that holds runs with
            other knobs or data.
    """
    runs = plan_runs(str(data_dir), bundles, seeds, folds, reference, knobs)
    own = dict(zip(OWN_FLAGS, (bundles, seeds, folds, reference), strict=True))
    command = command_line(str(data_dir), str(out), own | knobs)
    folder = Path(str(out))
    check_settings(runs, folder)
    try:
        with only_study(folder) as keep_open, _ended_by_signals():
            _run_all(runs, folder, command, keep_open)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(STOPPED)
    _report(write_results(folder, command), folder)


def command_line(data_dir: str, out: str, settings: Mapping[str, Any]) -> str:
    """Write a study's command line.

    Args:
        data_dir: the data folder.
        out: the study's folder.
        settings: all other flags; the study's own are left out where they are None.
    """
    words = ["python", "-m", "lora_ext", "study", "--data_dir", data_dir, "--out", out]
    for key, value in settings.items():
        if key in OWN_FLAGS and isinstance(value, (list, tuple)):
            words += [f"--{key}", ",".join(map(str, value))]
        elif value is not None or key not in OWN_FLAGS:
            words += [f"--{key}", as_word(value)]
    return shlex.join(words)


def _run_all(runs: Sequence[Run], out: Path, command: str, keep_open: Sequence[int]) -> None:
    bundles = find_bundles([run.bundle for run in runs], out)
    open_runs = [run for run in runs if not finished(run, out)]
    progress = StudyProgress(len(runs), len(runs) - len(open_runs))
    try:
        for run in open_runs:
            progress.begin(run)
            record = execute(run, bundles, out, progress.follow, keep_open)
            write_results(out, command)
            progress.end(record)
    finally:
        progress.close()


def _report(results: dict[str, Any], out: Path) -> None:
    failed = [r for r in results["runs"] if r["status"] == "failed"]
    if len(failed) < len(results["runs"]):
        from lora_ext.study.plots import write_plots
        from lora_ext.study.tables import write_tables

        write_tables(results, out)
        write_plots(results, out)
        print(f"results.json, tables and plots are in {out}")
    for record in failed:
        print(
            f"failed: {out / record['folder']}; the same command tries it again\n{record['error']}",
            file=sys.stderr,
        )
    if failed:
        sys.exit(1)


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
