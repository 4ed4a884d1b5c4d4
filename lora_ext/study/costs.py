"""table2.md: parameters beside the paper's Table 2, seconds and memory of the runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_ext.bundles.generator import bundle_facts
from lora_ext.networks.parameters import PAPER_TABLE_2, ParameterReport, reconcile
from lora_ext.study.markdown import NONE, small, table
from lora_ext.study.page import write_tables_page
from lora_ext.study.paper import regime_title
from lora_ext.study.statistics import Record, Spread

COUNTS = ("total", "trainable", "non_trainable")
TITLES = {"total": "Total", "trainable": "Trainable", "non_trainable": "Non-trainable"}
LEGEND = (
    "Parameters are in millions (M), each counted once. The percentage is the share of the "
    "network's own total.",
    "`paper's way` repeats the paper's arithmetic on these networks: HF peft keeps one adapter "
    "trainable and the other C - 1 not, so adding the trainable count (all C adapters) and the "
    "non-trainable one (encoder and C - 1 adapters) counts C - 1 adapters twice. At the paper's "
    "size it gives the paper's LoRA cells; the true totals are smaller.",
    "Encoder, fusion + decoder and adapters add up to the total.",
    "Seconds are per run, by the clock, mean ± sample standard deviation over runs; they include "
    "start-up, reading data and, in evaluation, drawing. Peak memory is the highest of the runs, "
    f"in MB; {NONE} where it was not measured.",
)


def write_table2(results: Mapping[str, Any], path: Path) -> Path:
    """Write parameters, seconds and peak memory, beside the paper's Table 2.

    Args:
        results: the content of results.json.
        path: the file to write.
    """
    title = "Parameters and cost by regime"
    return write_tables_page(path, title, results, table2, LEGEND)


def table2(dataset: str, regimes: Mapping[str, Sequence[Record]]) -> str:
    """Lay out one data set's parameters and cost: quantities down, regimes across.

    Args:
        dataset: its name.
        regimes: its runs by regime.
    """
    counts = {name: _counts(runs[0]) for name, runs in regimes.items()}
    again = {name: paper_arithmetic(runs[0]) for name, runs in regimes.items()}
    rows = []
    for key in COUNTS:
        rows.append([f"**{TITLES[key]}** (M)", *(_ours(own, key) for own in counts.values())])
        cells = [_paper(dataset, name, key) for name in regimes]
        if any(cells):
            rows.append([small("paper"), *map(small, cells)])
        repeated = [f"{own[key] / 1e6:.3f}" if own else "" for own in again.values()]
        if any(repeated):
            rows.append([small("paper's way"), *map(small, repeated)])
    for key, title in (
        ("encoder", "Encoder (M)"),
        ("fusion_decoder", "Fusion + decoder (M)"),
        ("adapters", "Adapters (M)"),
    ):
        rows.append([title, *(_millions(own.get(key)) for own in counts.values())])
    return table(
        ["", *map(regime_title, regimes)], rows + [_cost(regimes, kind) for kind in _COSTS]
    )


def paper_arithmetic(run: Record) -> dict[str, int] | None:
    """Repeat the paper's count on a run's network; None for references and unknown channels.

    Args:
        run: an entry of results.json.
    """
    counts, channels = run.get("parameters") or {}, channel_count(run)
    if channels is None or "adapters" not in counts:
        return None
    report = ParameterReport(
        encoder=counts["encoder"],
        fusion=0,  # results.json has the sum of fusion and decoder, and only the sum matters here
        decoder=counts["fusion_decoder"],
        adapters=counts["adapters"],
        trainable=counts["trainable"],
    )
    return reconcile(report, channels)


def channel_count(run: Record) -> int | None:
    """Return the number of image channels of a run, by its knobs or its bundle."""
    named = (run.get("knobs") or {}).get("modalities")
    if isinstance(named, str):
        try:
            named = json.loads(named)
        except json.JSONDecodeError:
            return None
    if named is None:
        named = bundle_facts().get(Path(run.get("bundle") or "").name, {}).get("modalities")
    return len(named) if named else None


def _counts(run: Record) -> dict[str, int]:
    counts = dict(run.get("parameters") or {})
    if {"total", "trainable"} <= counts.keys():
        counts["non_trainable"] = counts["total"] - counts["trainable"]
    return counts


def _ours(counts: Mapping[str, int], key: str) -> str:
    if key not in counts:
        return NONE
    share = "" if key == "total" else f" ({100 * counts[key] / counts['total']:.2f} %)"
    return _millions(counts[key]) + share


def _millions(count: int | None) -> str:
    return NONE if count is None else f"{count / 1e6:.3f}"


def _paper(dataset: str, regime: str, key: str) -> str:
    cells = PAPER_TABLE_2.get(f"{dataset}_{regime}")
    return f"{cells[COUNTS.index(key)]:.2f}" if cells else ""


_COSTS = ("training", "evaluating", "peak_memory_mb")


def _cost(regimes: Mapping[str, Sequence[Record]], kind: str) -> list[str]:
    if kind == "peak_memory_mb":
        known = [
            [run[kind] for run in runs if run.get(kind) is not None] for runs in regimes.values()
        ]
        return ["Peak memory (MB)", *(f"{max(v):,.0f}" if v else NONE for v in known)]
    spreads = [
        Spread.of((run.get("seconds") or {}).get(kind) for run in runs) for runs in regimes.values()
    ]
    return [f"Seconds, {kind}", *map(_seconds, spreads)]


def _seconds(value: Spread) -> str:
    if not value.values:
        return NONE
    return f"{value.mean:.1f}" + (f" ± {value.std:.1f}" if len(value.values) > 1 else "")
