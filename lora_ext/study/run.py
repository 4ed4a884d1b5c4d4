"""One run of a study: train, evaluate, record; skip what is done, go on with what was killed.

A run's folder has ``state.json`` (settings, seconds so far, whether the training is over), the
bundle's ``models/`` and ``eval/``, the logs, and ``run.json``, the record, once it has ended.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fire import parser

from lora_ext.data import read_task
from lora_ext.study.plan import NO_ENCODER, Run
from lora_ext.study.reference import SIZES
from lora_ext.study.results import TRAINED, VALIDATED, make_record, read_json, write_json
from lora_ext.weights.start import NAMES

MONAI_BUNDLE = ("python", "-m", "monai.bundle")
LAUNCHER = (sys.executable, "-m", "monai.bundle")
POLL_SECONDS = 0.5
GRACE_SECONDS = 10.0  # between asking a child to end and ending it
OVERLAY, CHECKED = "overlay.json", "eval/checked_cases.json"
NETWORK_ARGUMENTS = {
    "in_channels": "$len(@modalities)", "out_channels": "$len(@regions)", "img_size": "@roi_size",
    **{name: f"@{name}" for name in (*SIZES, "spacing", "modalities")},
}  # fmt: skip
Watch = Callable[[str], None]


def finished(run: Run, out: Path) -> bool:
    """Return whether a run is done, so that it need not be run again."""
    return read_json(out / run.folder / "run.json").get("status") == "done"


def changed_file(run: Run, out: Path) -> Path | None:
    """Find an image or label map that was changed after a finished run, whose numbers are older."""
    ended = (out / run.folder / "run.json").stat().st_mtime
    with suppress(ValueError):  # data that are not there any more have not changed
        task = read_task(run.dataset_dir, on_disk=())
        files = (path for case in task.training for path in (*case.images, case.label) if path)
        return next((p for p in files if p.is_file() and p.stat().st_mtime > ended), None)
    return None


def execute(
    run: Run, bundles: Path, out: Path, watch: Watch, keep_open: Sequence[int] = (),
    root: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train and evaluate, from where an earlier attempt was stopped, and return the run's record.

    `watch` gets every line of the logs, the processes inherit the file descriptors `keep_open`, and
    `root` is the folder around several studies that belong together.
    """
    folder = out / run.folder
    state = _begin(run, folder, root or out)
    write_json(folder / OVERLAY, overlay(run, folder))
    argv = commands(run, bundles, folder)
    error = None
    if not state["trained"]:
        error = _process("training", argv["training"], folder, state, watch, keep_open)
        state["trained"] = error is None
        write_json(folder / "state.json", state)
    if error is None:
        error = _process("evaluating", argv["evaluating"], folder, state, watch, keep_open)
    record = make_record(run, folder, argv, state["seconds"], error)
    write_json(folder / "run.json", record)
    if error is None:
        (folder / "models" / "last.ckpt").unlink(missing_ok=True)  # large, and of no more use
    return record


def commands(run: Run, bundles: Path, folder: Path) -> dict[str, list[str]]:
    """Compose the command lines as a user would type them; nothing is written to the bundle."""
    configs = bundles / run.bundle / "configs"
    names = {"training": ["train.json"], "evaluating": ["train.json", "evaluate.json"]}
    settings = {
        "dataset_dir": run.dataset_dir,
        "ckpt_dir": str(folder / "models"),
        "output_dir": str(folder / "eval"),
        "seed": run.seed,
        "fold": run.fold,
        **run.knobs,
    }
    flags = [word for key, value in settings.items() for word in (f"--{key}", as_word(value))]
    return {
        kind: [
            *(*MONAI_BUNDLE, "run", kind, "--config_file"),
            repr([str(configs / file) for file in files] + [str(folder / OVERLAY)]),
            *flags,
        ]
        for kind, files in names.items()
    }


def overlay(run: Run, folder: Path) -> dict[str, Any]:
    """Compose what is laid over the bundle's config: a record of the device, another network."""
    record = {"_target_": "lora_ext.study.DeviceRecord", "path": str(folder / "device.json")}
    config: dict[str, Any] = {"+train#handlers": [record]}
    if run.reference:
        target = {"_target_": "lora_ext.study.ReferenceNetwork", "name": run.regime}
        config["network_def"] = target | NETWORK_ARGUMENTS
        config["regime"] = "baseline"  # no encoder is looked for
    return config


def as_word(value: Any) -> str:
    """Write a value as one word of a command line that fire reads back as the same value."""
    if isinstance(value, str) and parser.DefaultParseValue(value) == value:
        return value
    return repr(value)


def check_same_settings(runs: Sequence[Run], out: Path) -> None:
    """Refuse to mix: all runs below a study's folder have the same settings and data.

    A run without a checkpoint yet may be asked for with other settings. The encoder may be another
    file per data set, seed and fold, but a data set does not mix runs with and without one.
    """
    for run in runs:
        folder = out / run.folder
        if _is_begun(folder):
            _check_same(_settings(run), read_json(folder / "state.json")["settings"], folder)
    planned = {out / run.folder for run in runs}
    loose = {"dataset_dir", "pretrained"}  # differ between data sets, regimes, seeds and folds
    wanted = {key: value for key, value in _settings(runs[0]).items() if key not in loose}
    for path in sorted((out / "runs").glob("*/*/run.json")):
        if path.parent not in planned and _is_begun(path.parent):
            found = read_json(path.with_name("state.json"))["settings"]
            _check_same(wanted, {k: v for k, v in found.items() if k not in loose}, path.parent)
            dataset, theirs = path.parts[-3].partition("_")[0], found.get("pretrained")
            for ours in [run.knobs.get("pretrained") for run in runs if run.dataset == dataset]:
                if theirs and ours and (theirs == NO_ENCODER) != (ours == NO_ENCODER):
                    _check_same({"pretrained": ours}, {"pretrained": theirs}, path.parent)


def run_process(
    argv: Sequence[str], log: Path, watch: Watch, *, append: bool = False,
    keep_open: Sequence[int] = (),
) -> int:  # fmt: skip
    """Run a command line to its end and return its status; however this is left, it has ended.

    Its output goes to the log, and every finished line of that to `watch`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("ab" if append else "wb") as sink,
        log.open(encoding="utf-8", errors="replace") as source,
    ):
        source.seek(0, 2)
        child = subprocess.Popen(
            [*LAUNCHER, *argv[len(MONAI_BUNDLE) :]],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(keep_open),
        )
        begun = ""
        try:
            while True:
                status = child.poll()
                while piece := source.readline():
                    begun += piece
                    if begun.endswith("\n"):
                        watch(begun.rstrip("\n"))
                        begun = ""
                if status is not None:
                    return status
                time.sleep(POLL_SECONDS)
        finally:
            child.terminate()
            try:
                child.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _settings(run: Run) -> dict[str, Any]:
    """What two runs of one study must have in common."""
    return {"dataset_dir": str(Path(run.dataset_dir).resolve()), **run.knobs}


def _is_begun(folder: Path) -> bool:
    """Whether there is something that other settings would spoil."""
    state = read_json(folder / "state.json")
    return bool(state) and (state["trained"] or (folder / "models" / "last.ckpt").is_file())


def _check_same(wanted: Mapping[str, Any], found: Mapping[str, Any], folder: Path) -> None:
    # Sizes come from an encoder's file, which finished runs need no more; an unfinished one
    # compares them with its checkpoint.
    unknown = found.keys() & set(NAMES.values()) - wanted.keys()
    for key in sorted((wanted.keys() | found.keys()) - unknown):
        ours, theirs = wanted.get(key, "its default"), found.get(key, "its default")
        if ours != theirs:
            raise ValueError(
                f"{folder}: expected a run with {key} {ours}, found one with {key} {theirs}; give "
                "another --out, or remove that folder to run it anew"
            )


def _begin(run: Run, folder: Path, root: Path) -> dict[str, Any]:
    """Read the state of an earlier attempt, or write that of a first one."""
    if _is_begun(folder):
        return read_json(folder / "state.json")
    state: dict[str, Any] = {"settings": _settings(run), "trained": False}
    state["seconds"] = {"training": 0.0, "evaluating": 0.0}
    for name in ("run.json", "device.json", "training.log", "evaluating.log"):
        (folder / name).unlink(missing_ok=True)
    write_json(folder / "state.json", state)
    # Start from the longest list of checked cases of this data set's other runs, so that these need
    # not be read again. The list knows files by size and time of change: changed ones are read.
    name = f"runs/{run.dataset}_*/*/{CHECKED}"
    lists = [*root.glob(name), *root.glob(f"*/{name}")]
    if lists and not (folder / CHECKED).is_file():
        write_json(folder / CHECKED, read_json(max(lists, key=lambda path: path.stat().st_size)))
    return state


def _process(
    kind: str, argv: Sequence[str], folder: Path, state: dict[str, Any], watch: Watch,
    keep_open: Sequence[int],
) -> str | None:  # fmt: skip
    """Run one of a run's two processes; return what went wrong, if anything."""
    resume = kind == "training" and (folder / "models" / "last.ckpt").is_file()
    before = state["seconds"][kind] if resume else 0.0
    began = time.perf_counter()

    def clock() -> None:
        state["seconds"][kind] = before + time.perf_counter() - began
        write_json(folder / "state.json", state)

    def follow(line: str) -> None:
        if TRAINED.search(line) or VALIDATED.search(line):
            clock()  # so that the time is known even if this process is killed
        watch(line)

    log = folder / f"{kind}.log"
    anew = ("--overwrite", "True") if kind == "training" else ()  # what is there is no more use
    flags = ("--resume", "True") if resume else anew
    try:
        status = run_process([*argv, *flags], log, follow, append=resume, keep_open=keep_open)
    finally:
        clock()
    if status == 0:
        return None
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join([f"{kind} ended with exit status {status}", *lines[-12:]])
