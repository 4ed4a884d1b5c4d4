"""``run.json`` of every run and ``results.json`` of the study."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lora_ext import __version__
from lora_ext.bundles.generator import DATASETS, REGIMES, bundle_facts
from lora_ext.files import whole_file
from lora_ext.networks.parameters import parameter_report
from lora_ext.networks.unetr import ChannelLoRAUNETR
from lora_ext.study.plan import Run
from lora_ext.study.reference import REFERENCES, ReferenceNetwork
from lora_ext.study.training_log import read_curve, training_cases

ROW_ORDER = [f"{d}_{regime}" for d in DATASETS for regime in (*REGIMES, *REFERENCES)]


def make_record(
    run: Run,
    folder: Path,
    argv: Mapping[str, list[str]],
    seconds: Mapping[str, float],
    error: str | None,
) -> dict[str, Any]:
    """Gather everything about a run that has ended.

    Args:
        run: what was run.
        folder: the run's folder.
        argv: the command lines, by process.
        seconds: how long each process took, interruptions left out.
        error: what went wrong; None if nothing did.

    Returns:
        One entry of ``runs`` in ``results.json``. A failed run has no ``summary`` (None) and no
        ``cases``; its ``parameters`` are None if it ended before the first validation.
    """
    metrics = read_json(folder / "eval" / "metrics.json") if error is None else {}
    regions = run.knobs.get("regions", bundle_facts()[run.bundle]["regions"])
    return {
        "row": run.row,
        "dataset": run.dataset,
        "regime": run.regime,
        "reference": run.reference,
        "bundle": run.bundle,
        "seed": run.seed,
        "fold": run.fold,
        "knobs": run.knobs,
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
    """Count the parameters of the network that ``network.json`` describes, without making it.

    Args:
        network_json: the description that lies beside a run's ``model.pt``.

    Returns:
        Counts by part (``total`` and ``trainable`` alone for a reference network); None where
        there is no such file.
    """
    config = read_json(network_json)
    if not config:
        return None
    with torch.device("meta"):
        if "name" in config:
            parameters = list(ReferenceNetwork.from_config(config).parameters())
            total = sum(p.numel() for p in parameters)
            return {"total": total, "trainable": total}
        report = parameter_report(ChannelLoRAUNETR(**config)).as_dict()
    keys = ("total", "trainable", "encoder", "fusion_decoder", "adapters")
    return {key: report[key] for key in keys}


def collect_runs(out: Path) -> list[dict[str, Any]]:
    """Read the records of all runs that have ended below a study's folder, in the tables' order."""
    records = [read_json(path) for path in (out / "runs").glob("*/*/run.json")]
    return sorted(records, key=lambda r: (ROW_ORDER.index(r["row"]), r["seed"], r["fold"]))


def write_results(out: Path, command: str) -> dict[str, Any]:
    """Write ``results.json`` from the records of all runs, and return it.

    Args:
        out: the study's folder.
        command: the command line of the study.
    """
    records = collect_runs(out)
    devices = {
        read_json(out / record["folder"] / "device.json").get("device") for record in records
    }
    results = {
        "command": command,
        "versions": versions(),
        "device": ", ".join(sorted(filter(None, devices))) or "unknown",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "runs": records,
    }
    write_json(out / "results.json", results)
    return results


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    return {
        "python": platform.python_version(),
        "lora_ext": __version__,
        **{name: version(name) for name in ("monai", "torch", "numpy")},
        "platform": platform.platform(),
    }


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; a file that is not there is empty."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    with whole_file(path) as draft:
        draft.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
