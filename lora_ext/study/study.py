"""``python -m lora_ext study``: run what is unfinished, then write the tables and plots.

An ablation is several studies, each a `Part`, that share one lock and one progress bar.
"""

from __future__ import annotations

import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from lora_ext.study.plan import Run, check_pretrained, find_bundles, plan_runs
from lora_ext.study.plots import write_plots
from lora_ext.study.results import TRAINED, VALIDATED, finished_runs, write_results
from lora_ext.study.run import as_word, changed_file, check_same_settings, execute, finished
from lora_ext.study.tables import write_tables

STOPPED = 130  # exit status of a program that Ctrl-C ended
BAR = "{percentage:3.0f}%|{bar:20}| {n:.1f}/{total} runs [{elapsed}<{remaining}] {desc}{postfix}"


class Part(NamedTuple):
    """Runs with the same settings, in a folder of their own for ``runs/`` and ``results.json``."""

    folder: Path
    runs: Sequence[Run]
    name: str = ""  # said in the console before a run's name


def run_study(
    data_dir: str,
    out: str,
    bundles: Any = None,
    seeds: Any = 0,
    folds: Any = 0,
    reference: Any = None,
    **settings: Any,
) -> None:
    """Train and evaluate bundles as a user would, and write tables and plots of all of them.

    The same call again skips what is finished and resumes what was stopped. Exits with 1 if a
    run failed and with 130 if it was stopped. A seed is the run's alone: the folds are the same for
    all seeds, and follow the setting ``split_seed``. ``pretrained`` is a file, a pattern with
    ``{dataset}``, ``{seed}`` and ``{fold}``, or ``none`` for random weights; without it, bundles
    look for an encoder themselves. For the other arguments see ``python -m lora_ext study --help``.
    """
    folder = Path(str(out))
    runs = plan_runs(str(data_dir), bundles, seeds, folds, reference, settings)
    own = {"bundles": bundles, "seeds": seeds, "folds": folds, "reference": reference}
    parts = [Part(folder, runs)]
    results = run_parts(
        parts, folder, command_line("study", str(data_dir), str(out), own, settings)
    )
    if finished_runs(results[0]):
        write_tables(results[0], folder)
        write_plots(results[0], folder)
        print(f"results.json, tables and plots are in {folder}")
    exit_if_failed(parts, results)


def command_line(
    verb: str, data_dir: str, out: str, own: Mapping[str, Any], settings: Mapping[str, Any]
) -> str:
    """Write the command line of a study or an ablation; `own` are the verb's own flags."""
    argv = ["python", "-m", "lora_ext", verb, "--data_dir", data_dir, "--out", out]
    for key, value in own.items():
        if value is not None:
            listed = value if isinstance(value, (list, tuple)) else [value]
            argv += [f"--{key}", ",".join(map(str, listed))]
    for key, value in settings.items():
        argv += [f"--{key}", as_word(value)]
    return shlex.join(argv)


def run_parts(parts: Sequence[Part], root: Path, command: str) -> list[dict[str, Any]]:
    """Run what is unfinished of all parts, their first runs first; write and return their results.

    The folder `root`, in which they lie, is locked meanwhile. Exits with 130 if it was stopped.
    """
    for part in parts:
        check_same_settings(part.runs, part.folder)
    # Every part's first run, then every part's second: an early stop leaves whole tables.
    rounds = zip_longest(*([(part, run) for run in part.runs] for part in parts))
    planned = [entry for turn in rounds for entry in turn if entry is not None]
    todo = [(part, run) for part, run in planned if not finished(run, part.folder)]
    check_pretrained([run for _, run in todo])
    _tell_changed([entry for entry in planned if entry not in todo])
    try:
        with only_study(root) as keep_open, _ended_by_signals():
            bundles = find_bundles([run.bundle for _, run in todo], root)
            progress = Progress(len(planned), len(planned) - len(todo))
            for part, run in todo:
                progress.begin(f"{part.name} {run.title}".strip())
                record = execute(run, bundles, part.folder, progress.follow, keep_open, root)
                write_results(part.folder, command)
                progress.end(record)
    except KeyboardInterrupt:
        print("stopped; the same command resumes here", file=sys.stderr)
        sys.exit(STOPPED)
    return [write_results(part.folder, command) for part in parts]


def _tell_changed(done: Sequence[tuple[Part, Run]]) -> None:
    for part, run in done:
        if changed := changed_file(run, part.folder):
            print(
                f"warning: {changed} was changed after {part.folder / run.folder} had finished, "
                "whose numbers are those of the old file; remove that folder to run it anew",
                file=sys.stderr,
            )


def exit_if_failed(parts: Sequence[Part], results: Sequence[Mapping[str, Any]]) -> None:
    """Name the runs that failed, each with its error, and exit with 1 if there are any."""
    failed = [
        f"failed: {part.folder / run['folder']}; the same command tries it again\n{run['error']}"
        for part, own in zip(parts, results, strict=True)
        for run in own["runs"]
        if run["status"] == "failed"
    ]
    if failed:
        print("\n".join(failed), file=sys.stderr)
        sys.exit(1)


@contextmanager
def only_study(out: Path) -> Iterator[list[int]]:
    """Hold the study's folder, and yield the file descriptors that child processes must inherit.

    The lock (``flock``) is passed on to these, so that it ends with the last of them and never has
    to be cleaned up. Systems without it go without.
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


class Progress:
    """What a study says while it runs: a bar on a terminal, and one line per finished run."""

    def __init__(self, total: int, skipped: int) -> None:
        self.total, self.done, self.skipped = total, skipped, skipped
        self.began, hidden = time.perf_counter(), not sys.stderr.isatty()
        self.bar = tqdm(
            total=total, initial=skipped, bar_format=BAR, disable=hidden, dynamic_ncols=True
        )
        self.run = self.epoch = self.dice = ""

    def begin(self, run: str) -> None:
        """Show that a run begins."""
        self.run, self.epoch, self.dice = run, "", ""
        self.bar.set_description_str(run, refresh=False)
        self.bar.set_postfix_str("")

    def follow(self, line: str) -> None:
        """Show the epoch that a line of the log tells of."""
        if match := VALIDATED.search(line):
            self.dice = f", validation pooled_dice {match[3]}"
        elif match := TRAINED.search(line):
            self.bar.n = self.done + int(match[1]) / int(match[2])
            self.epoch = f"epoch {match[1]}/{match[2]}, loss {match[3]}"
        self.bar.set_postfix_str(self.epoch + self.dice)

    def end(self, record: Mapping[str, Any]) -> None:
        """Write a line about the run, which has ended."""
        self.done += 1
        self.bar.n = self.done
        self.bar.refresh()
        minutes = sum(record["seconds"].values()) / 60
        if record["status"] == "done":
            came = f"pooled_dice {record['summary']['pooled_dice']:.4f}, {minutes:.1f} min"
        else:
            lines = record["error"].splitlines()
            reason = [line for line in lines if line.startswith("error: ")] or lines
            came = f"FAILED after {minutes:.1f} min ({reason[-1]})"
        each = (time.perf_counter() - self.began) / (self.done - self.skipped)
        left = tqdm.format_interval(round(each * (self.total - self.done)))
        tqdm.write(f"{self.done}/{self.total} {self.run}: {came}, {left} left")
        sys.stdout.flush()
        if self.done == self.total:
            self.bar.close()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the study as Ctrl-C does, so that it takes its child along."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
