"""One run of a study: train, evaluate, record; skip what is done, go on with what was killed.

R/runs/<row>/seed<S>_fold<F>/
    state.json       settings, seconds so far, whether the training is over
    overlay.json     what the study lays over the bundle's config
    models/ eval/    checkpoints; TensorBoard files, metrics.json, cases.csv, figures
    training.log evaluating.log device.json
    run.json         the record, once the run has ended
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_ext.study.commands import OVERLAY, commands, overlay
from lora_ext.study.plan import Run
from lora_ext.study.pretrained import NO_ENCODER
from lora_ext.study.process import run_process
from lora_ext.study.results import make_record, read_json, write_json
from lora_ext.study.training_log import epoch_of, last_lines

Watch = Callable[[str], None]


def finished(run: Run, out: Path) -> bool:
    """Whether a run is done, so that it need not be run again."""
    return read_json(out / run.folder / "run.json").get("status") == "done"


def check_settings(runs: Sequence[Run], out: Path) -> None:
    """Refuse to mix: all runs below a study's folder have the same knobs and data.

    A run that failed before it wrote a checkpoint may be asked for again with other knobs. The
    pre-trained encoder may be another file per data set, seed and fold, but runs with and without
    one are not mixed in a data set.

    Args:
        runs: the runs that are asked for.
        out: the study's folder.

    Raises:
        ValueError: names the first difference.
    """
    for run in runs:
        if _is_begun(out / run.folder):
            _check_same(_settings(run), _found_settings(out / run.folder), out / run.folder)
    planned = {out / run.folder for run in runs}
    loose = {"dataset_dir", "pretrained"}  # differ between data sets, regimes, seeds and folds
    asked = {key: value for key, value in _settings(runs[0]).items() if key not in loose}
    for path in sorted((out / "runs").glob("*/*/run.json")):
        if path.parent not in planned and _is_begun(path.parent):
            found = _found_settings(path.parent)
            _check_same(asked, {k: v for k, v in found.items() if k not in loose}, path.parent)
            _check_start(runs, found, path.parent)


def execute(
    run: Run,
    bundles: Path,
    out: Path,
    watch: Watch,
    keep_open: Sequence[int] = (),
    root: Path | None = None,
) -> dict[str, Any]:
    """Train and evaluate, from where an earlier attempt was stopped.

    Args:
        run: what to run; `check_settings` has passed.
        bundles: the folder of bundles.
        out: the study's folder.
        watch: called with every line of the logs.
        keep_open: file descriptors that the processes inherit.
        root: the folder around several studies that belong together; `out` by default.

    Returns:
        The run's record, which is in ``run.json`` too.
    """
    folder = out / run.folder
    state = _begin(run, folder, root or out)
    write_json(folder / OVERLAY, overlay(run, folder))
    argv = commands(run, bundles, folder)
    error = None
    if not state["trained"]:
        error = _process("training", argv, folder, state, watch, keep_open)
        state["trained"] = error is None
        write_json(folder / "state.json", state)
    if error is None:
        error = _process("evaluating", argv, folder, state, watch, keep_open)
    record = make_record(run, folder, argv, state["seconds"], error)
    write_json(folder / "run.json", record)
    if error is None:
        (folder / "models" / "last.ckpt").unlink(missing_ok=True)  # large, and of no more use
    return record


def _settings(run: Run) -> dict[str, Any]:
    """What two runs of one study must have in common."""
    return {"dataset_dir": str(Path(run.dataset_dir).resolve()), **run.knobs}


def _found_settings(folder: Path) -> dict[str, Any]:
    return read_json(folder / "state.json")["settings"]


def _is_begun(folder: Path) -> bool:
    """Whether there is something that other settings would spoil."""
    state = read_json(folder / "state.json")
    return bool(state) and (state["trained"] or (folder / "models" / "last.ckpt").is_file())


def _check_same(asked: Mapping[str, Any], found: Mapping[str, Any], folder: Path) -> None:
    for key in sorted(asked.keys() | found.keys()):
        ours, theirs = asked.get(key, "its default"), found.get(key, "its default")
        if ours != theirs:
            raise ValueError(
                f"{folder}: was run with {key} {theirs}, and {key} {ours} is asked for; give "
                "another --out, or remove that folder to run it anew"
            )


def _check_start(runs: Sequence[Run], found: Mapping[str, Any], folder: Path) -> None:
    dataset = folder.parent.name.partition("_")[0]
    starts = [run.knobs.get("pretrained") for run in runs if run.dataset == dataset]
    theirs = found.get("pretrained")
    for ours in starts:
        if theirs and ours and (theirs == NO_ENCODER) != (ours == NO_ENCODER):
            _check_same({"pretrained": ours}, {"pretrained": theirs}, folder)


def _begin(run: Run, folder: Path, root: Path) -> dict[str, Any]:
    """Read the state of an earlier attempt, or write that of a first one."""
    if _is_begun(folder):
        return read_json(folder / "state.json")
    state = {
        "settings": _settings(run),
        "seconds": {"training": 0.0, "evaluating": 0.0},
        "trained": False,
    }
    for name in ("run.json", "device.json", "training.log", "evaluating.log"):
        (folder / name).unlink(missing_ok=True)
    write_json(folder / "state.json", state)
    _share_checks(run, folder, root)
    return state


def _share_checks(run: Run, folder: Path, root: Path) -> None:
    """Start from the longest list of checked cases of this data set's other runs.

    The list knows files by size and time of change, so a changed file is read again; the others
    need not be read by every run.
    """
    name = "eval/checked_cases.json"
    places = (f"{part}runs/{run.dataset}_*/*/{name}" for part in ("", "*/"))
    lists = sorted(
        (path for place in places for path in root.glob(place)),
        key=lambda path: path.stat().st_size,
    )
    if lists and not (folder / name).is_file():
        write_json(folder / name, read_json(lists[-1]))


def _process(
    kind: str,
    argv: Mapping[str, list[str]],
    folder: Path,
    state: dict[str, Any],
    watch: Watch,
    keep_open: Sequence[int],
) -> str | None:
    """Run one of a run's two processes; return what went wrong, if anything."""
    resume = kind == "training" and (folder / "models" / "last.ckpt").is_file()
    before = state["seconds"][kind] if resume else 0.0
    began = time.perf_counter()

    def clock() -> None:
        state["seconds"][kind] = before + time.perf_counter() - began
        write_json(folder / "state.json", state)

    def follow(line: str) -> None:
        if epoch_of(line):
            clock()  # so that the time is known even if this process is killed
        watch(line)

    log = folder / f"{kind}.log"
    words = [*argv[kind], *(("--resume", "True") if resume else ())]
    try:
        status = run_process(words, log, follow, append=resume, keep_open=keep_open)
    finally:
        clock()
    if status == 0:
        return None
    return f"{kind} ended with exit status {status}\n{last_lines(log)}"
