"""What came of the runs: ``run.json`` of each, ``results.json`` of all, and both as DataFrames.

Learning curves come from the log and not from TensorBoard: a resumed run continues the same log,
and an epoch that was done twice simply counts the second time.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events

from lora_ext import __version__
from lora_ext.bundles.generator import DATASETS, REGIMES, bundle_facts
from lora_ext.files import whole_file
from lora_ext.networks import network_from_record, parameter_report
from lora_ext.study.paper import title
from lora_ext.study.plan import NO_ENCODER, Run
from lora_ext.study.reference import REFERENCES, ReferenceNetwork

Record = dict[str, Any]  # one entry of ``runs`` in results.json
ROW_ORDER = [f"{d}_{regime}" for d in DATASETS for regime in (*REGIMES, *REFERENCES)]
OVERALL = ("mean_dice", "pooled_dice")  # measures beside the regions
RANDOM, UNKNOWN = "random", "unknown"  # what an encoder started from, if not from a file
PARTS = ("total", "trainable", "encoder", "fusion_decoder", "adapters")  # counts of parameters
RUN_COLUMNS = (
    *("dataset", "regime", "reference", "seed", "fold", "folder", "start", "cases"),
    *("peak_memory_mb", "seconds.training", "seconds.evaluating"),
    *(f"parameters.{part}" for part in PARTS),
)
TRAINED = re.compile(r"epoch (\d+)/(\d+): loss (\S+), learning rate (\S+), (?:(\d+\.\d) s$)?")
CASES = re.compile(r"\b(\d+) training cases, \d+ for validation ")
VALIDATED = re.compile(r"epoch (\d+)/(\d+): validation pooled_dice (\S+) ")


def make_record(
    run: Run, folder: Path, argv: Mapping[str, list[str]], seconds: Mapping[str, float],
    error: str | None,
) -> Record:  # fmt: skip
    """Gather everything about a run that has ended, as ``results.json`` has it.

    A run with an error has no ``summary`` and, if it ended before a validation, no ``parameters``.
    """
    metrics = read_json(folder / "eval" / "metrics.json") if error is None else {}
    regions = run.knobs.get("regions", bundle_facts()[run.bundle]["regions"])
    return {
        **{key: value for key, value in asdict(run).items() if key != "dataset_dir"},
        "encoder": metrics.get("encoder"),
        "commands": dict(argv),
        "status": "done" if error is None else "failed",
        "error": error,
        "seconds": {kind: round(value, 2) for kind, value in seconds.items()},
        "peak_memory_mb": read_json(folder / "device.json").get("peak_memory_mb"),
        "parameters": count_parameters(folder / "models" / "network.json"),
        "regions": metrics.get("regions", regions),
        "summary": metrics.get("summary"),
        "cases": metrics.get("cases", []),
        "curve": read_curve(folder / "training.log"),
        "training_cases": training_cases(folder / "training.log"),
        "folder": run.folder,
    }


def count_parameters(network_json: Path) -> dict[str, int] | None:
    """Count the `PARTS` of the network that a file describes; of references, the first two."""
    config = read_json(network_json)
    if not config:
        return None
    with torch.device("meta"):
        if "name" in config:
            network = ReferenceNetwork.from_config(config)
            total = sum(p.numel() for p in network.parameters())
            return {"total": total, "trainable": total}
        report = parameter_report(network_from_record(config)).as_dict()
    return {part: report[part] for part in PARTS}


def write_results(out: Path, command: str) -> dict[str, Any]:
    """Write ``results.json`` from the records of all runs that have ended, and return it."""
    records = [read_json(path) for path in (out / "runs").glob("*/*/run.json")]
    records.sort(key=lambda r: (ROW_ORDER.index(r["row"]), r["seed"], r["fold"]))
    devices = {read_json(out / r["folder"] / "device.json").get("device") for r in records}
    results = {
        "command": command,
        "versions": {
            "python": platform.python_version(),
            "lora_ext": __version__,
            **{name: version(name) for name in ("monai", "torch", "numpy")},
            "platform": platform.platform(),
        },
        "device": ", ".join(sorted(filter(None, devices))) or "unknown",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "runs": records,
    }
    write_json(out / "results.json", results)
    return results


def finished_runs(results: Mapping[str, Any]) -> list[Record]:
    """Return the runs that are done."""
    return [run for run in results["runs"] if run["status"] == "done"]


def run_frame(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per finished run, with `RUN_COLUMNS`.

    ``start`` is `encoder_start`. Data sets and regimes are categories in the paper's order; regimes
    that it does not have come after, references last.
    """
    rows = [
        {**run, "start": encoder_start(run), "cases": [case["case"] for case in run["cases"]]}
        for run in finished_runs(results)
    ]
    kept = {column.partition(".")[0] for column in RUN_COLUMNS}
    frame = pd.json_normalize([{k: v for k, v in r.items() if k in kept} for r in rows])
    frame = frame.reindex(columns=list(RUN_COLUMNS))
    frame["reference"] = frame["reference"].eq(True)
    regimes = frame.sort_values("reference", kind="stable")["regime"]
    return _categories(frame, {"dataset": DATASETS, "regime": (*REGIMES, *regimes)})


def dice_frame(results: Mapping[str, Any], per_case: bool = False) -> pd.DataFrame:
    """Return the Dice of the finished runs, one value a row.

    Columns are dataset, regime, seed, fold, folder, case, measure (a region or `OVERALL`) and
    value: over all cases of a run, which for ``pooled_dice`` is not their mean, or `per_case`.
    """
    rows = [
        (place, content.get("case", ""), measure, value)
        for place, run in enumerate(finished_runs(results))
        for content in (run["cases"] if per_case else [run["summary"]])
        for measure, value in _dice(content).items()
    ]
    frame = pd.DataFrame(rows, columns=["run", "case", "measure", "value"])
    own = run_frame(results)[["dataset", "regime", "seed", "fold", "folder"]]
    frame = own.join(frame.astype({"value": float}).set_index("run"), how="inner")
    regions = [name for name in frame["measure"].unique() if name not in OVERALL]
    return _categories(frame.reset_index(drop=True), {"measure": (*regions, *OVERALL)})


def titles(runs: pd.DataFrame) -> dict[str, str]:
    """Return what a data set's regimes are called, such as ``LoRA-32 (random encoder)``.

    The mark tells that a regime that is meant to start from a pre-trained encoder did not.
    """
    found = {}
    for regime, starts in runs.groupby("regime")["start"]:
        found[regime] = title(str(regime))
        for kind in (RANDOM, UNKNOWN):
            count = int((starts == kind).sum())
            share = "" if count == len(starts) else f" in {count} of {len(starts)} runs"
            found[regime] += f" ({kind} encoder{share})" if count else ""
    return found


def encoder_start(run: Record) -> str | None:
    """Return what an encoder started from: a file, `RANDOM` or `UNKNOWN`; None where by design."""
    if run["regime"] == "baseline" or run.get("reference"):
        return None
    given = (run.get("knobs") or {}).get("pretrained")
    return run.get("encoder") or (RANDOM if given == NO_ENCODER else given) or UNKNOWN


def read_curve(log: Path) -> list[dict[str, Any]]:
    """Read the learning curve out of a training log, a point per epoch."""
    points: dict[int, dict[str, Any]] = {}
    for line in _lines(log):
        if match := TRAINED.search(line):
            points[int(match[1])] = {
                "epoch": int(match[1]), "loss": float(match[3]), "learning_rate": float(match[4]),
                "seconds": float(match[5]) if match[5] else None, "val_pooled_dice": None,
            }  # fmt: skip
        elif (match := VALIDATED.search(line)) and int(match[1]) in points:
            points[int(match[1])]["val_pooled_dice"] = float(match[3])
    return [points[epoch] for epoch in sorted(points)]


def training_cases(log: Path) -> int | None:
    """Return the number of cases that a run trained on, None where its log does not tell."""
    return next((int(found[1]) for line in _lines(log) if (found := CASES.search(line))), None)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; a file that is not there is empty."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    with whole_file(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


class DeviceRecord:
    """Write ``{"device": name, "peak_memory_mb": MiB}`` after every epoch of a training process.

    On a GPU the peak is what PyTorch allocated (``torch.cuda.max_memory_allocated``); on the CPU it
    is the largest resident size, and null where the system does not tell. A higher peak from before
    an interruption is kept if it was on the same device.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI trainer. Attach it after the validation."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Write the record of this process so far."""
        device = engine.state.device  # type: ignore[attr-defined]
        on_gpu = device.type == "cuda"
        name = torch.cuda.get_device_name(device) if on_gpu else "cpu"
        peak = torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else _resident_mb()
        before = read_json(self.path)
        if peak is not None and before.get("device") == name:
            peak = max(peak, before["peak_memory_mb"] or 0.0)
        write_json(self.path, {"device": name, "peak_memory_mb": peak})


def _resident_mb() -> float | None:
    """Return the largest resident size of this process in MiB, where the system tells it."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _lines(log: Path) -> list[str]:
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return text.splitlines()


def _dice(content: Mapping[str, Any]) -> dict[str, float]:
    """Return the Dice of a case or a summary, by measure."""
    regions = {name: region.get("dice") for name, region in content.get("regions", {}).items()}
    values = regions | {name: content.get(name) for name in OVERALL}
    return {name: value for name, value in values.items() if value is not None}


def _categories(frame: pd.DataFrame, orders: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Make columns categories: the values in their order, what it lacks after it."""
    for column, order in orders.items():
        found = set(frame[column])
        names = [name for name in dict.fromkeys((*order, *frame[column])) if name in found]
        frame[column] = pd.Categorical(frame[column], names, ordered=True)
    return frame
