"""table1.md and table2.md: Dice, parameters and cost by regime, the paper's figures beside ours."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lora_ext.bundles.generator import bundle_facts
from lora_ext.networks.parameters import PAPER_TABLE_2, ParameterReport, reconcile
from lora_ext.study import pages
from lora_ext.study.comparisons import write_comparisons
from lora_ext.study.paper import PAPER_TABLE_1, title
from lora_ext.study.results import PARTS, Record, dice_frame, finished_runs, run_frame, titles

COUNTS = {"total": "Total", "trainable": "Trainable", "non_trainable": "Non-trainable"}
LEGEND_1 = """\
- Each cell is the mean over runs ± their sample standard deviation over seeds and folds (none for
  a single run). {{ seed_rule }} In parentheses: the change against Baseline in %.
- **Bold** is the best of a row, <u>underlined</u> the second-best, compared as printed. Reference
  networks (in *italics*) take part only where they beat every regime.
- {{ dice_rule }} **Mean of regions** (`mean_dice`) is the plain mean of the regions' rows.
- {{ pooled_rule }} The paper's "Overall" stands beside it: it is not the mean of its regions, and
  it fits a pooled Dice.
- {{ encoder_rule }}
- {{ paper_rule }}
"""
LEGEND_2 = """\
- Parameters are in millions (M), each counted once; encoder, fusion + decoder and adapters add up
  to the total. The percentage is the share of the network's own total.
- `paper's way` repeats the paper's arithmetic: its trainable count has all C adapters, its
  non-trainable one C - 1 of them again, since peft keeps one trainable and freezes the others. At
  the paper's size it gives the paper's LoRA cells; the true totals are smaller.
- Seconds are wall-clock time per run, mean ± sample standard deviation over runs, with start-up,
  reading data and, in evaluation, drawing. Peak memory is the highest of the runs, in MB.
  {{ none }} stands where something was not measured.
- {{ encoder_rule }}
- {{ paper_rule }}
"""


def write_tables(results: Mapping[str, Any], out: str | os.PathLike[str]) -> list[Path]:
    """Write table1.md, table2.md, comparisons.md and comparisons.json into a folder."""
    folder, dice, done = Path(out), dice_frame(results), finished_runs(results)
    dices, costs = {}, {}
    for dataset, runs in run_frame(results).groupby("dataset"):
        dices[str(dataset)] = table1(dice[dice["dataset"] == dataset], runs)
        costs[str(dataset)] = table2(runs, done)
    written = [
        pages.write_page(path, head, results, pages.dataset_sections(results, bodies), legend)
        for path, head, bodies, legend in (
            (folder / "table1.md", "Dice by regime", dices, LEGEND_1),
            (folder / "table2.md", "Parameters and cost by regime", costs, LEGEND_2),
        )
    ]
    return [*written, *write_comparisons(results, folder)]


def table1(dice: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Lay out a data set's Dice: measures down, regimes across, the paper's cells below each."""
    names, outside = titles(runs), set(runs.loc[runs["reference"], "regime"])
    paper = PAPER_TABLE_1.get(str(runs["dataset"].iloc[0]), {})
    overall = dice.groupby(["measure", "regime"])["value"]
    rows = []
    for measure, found in overall.agg(["mean", "std"]).groupby(level="measure"):
        found = found.droplevel("measure").reindex(list(names))
        rows.append([f"**{title(str(measure))}**", *_dice_cells(found, outside)])
        if printed := paper.get(str(measure)):
            changes = {n: change(dice, printed["baseline"]) for n, dice in printed.items()}
            changes["baseline"] = ""
            cells = [
                f"{printed[n]:.4f} {changes[n]}".strip() if n in printed else "" for n in names
            ]
            rows.append(_small(["paper", *cells]))
    heads = [f"*{text}*" if name in outside else text for name, text in names.items()]
    return pages.markdown(pd.DataFrame(rows, columns=["Dice", *heads]))


def table2(runs: pd.DataFrame, records: Sequence[Record]) -> str:
    """Lay out a data set's parameters and cost: quantities down, regimes across."""
    groups = runs.groupby("regime")
    counts = groups[[f"parameters.{part}" for part in PARTS]].first()
    counts = counts.rename(columns=lambda name: name.partition(".")[2]).astype(float)
    rows = _count_rows(str(runs["dataset"].iloc[0]), counts, records)
    parts = {"encoder": "Encoder", "fusion_decoder": "Fusion + decoder", "adapters": "Adapters"}
    rows += [[f"{name} (M)", *map(pages.millions, counts[key])] for key, name in parts.items()]
    for kind in ("training", "evaluating"):
        sums = groups[f"seconds.{kind}"].agg(["mean", "std"]).astype(float).to_numpy()
        rows.append([f"Seconds, {kind}", *(pages.spread(m, s, digits=1) for m, s in sums)])
    peaks = groups["peak_memory_mb"].max().astype(float)
    rows.append(
        ["Peak memory (MB)", *(pages.NONE if math.isnan(p) else f"{p:,.0f}" for p in peaks)]
    )
    return pages.markdown(pd.DataFrame(rows, columns=["", *titles(runs).values()]))


def change(value: float, baseline: float) -> str:
    """Return the change against `baseline` in percent with an arrow, empty where undefined."""
    percent = round(100.0 * (value - baseline) / baseline, 1) if baseline else math.nan
    arrow = "↑" if percent > 0 else "↓" if percent < 0 else ""
    return "" if math.isnan(percent) else f"({arrow}{abs(percent):.1f})"


def paper_arithmetic(run: Record) -> dict[str, int]:
    """Repeat the paper's count on a run's network; empty for references and unknown channels."""
    facts = bundle_facts().get(Path(run.get("bundle") or "").name, {})
    channels = (run.get("knobs") or {}).get("modalities", facts.get("modalities"))
    counts = run.get("parameters") or {}
    if not isinstance(channels, list) or "adapters" not in counts:
        return {}
    # results.json has the sum of fusion and decoder, and only the sum matters here
    parts = (counts["encoder"], 0, counts["fusion_decoder"], counts["adapters"])
    return reconcile(ParameterReport(*parts, counts["trainable"]), len(channels))


def _dice_cells(found: pd.DataFrame, outside: Collection[str]) -> list[str]:
    """Write a measure's mean ± std of each regime, marked, with the change against Baseline."""
    marks = pages.ranking(found["mean"], outside)
    baseline = found["mean"].get("baseline", math.nan)
    return [
        f"{pages.spread(mean, std, marks.get(name, 0))} "
        f"{'' if name == 'baseline' else change(mean, baseline)}".strip()
        for name, mean, std in found[["mean", "std"]].itertuples()
    ]


def _count_rows(dataset: str, counts: pd.DataFrame, records: Sequence[Record]) -> list[list[str]]:
    """Write the counts of all parameters, the paper's cells and its arithmetic below each."""
    counts = counts.assign(non_trainable=counts["total"] - counts["trainable"])
    firsts = {run["regime"]: run for run in reversed(records) if run["dataset"] == dataset}
    again = [paper_arithmetic(firsts[str(name)]) for name in counts.index]
    paper = [PAPER_TABLE_2.get(f"{dataset}_{name}") for name in counts.index]
    rows = []
    for place, (key, name) in enumerate(COUNTS.items()):
        shares = counts[key] / counts["total"] if place else [math.nan] * len(counts)
        rows.append([f"**{name}** (M)", *map(pages.millions, counts[key], shares)])
        if any(paper):
            printed = (f"{cells[place]:.2f}" if cells else "" for cells in paper)
            rows.append(_small(["paper", *printed]))
        if any(again):
            repeated = (pages.millions(own[key]) if own else "" for own in again)
            rows.append(_small(["paper's way", *repeated]))
    return rows


def _small(cells: Sequence[str]) -> list[str]:
    return [f"<sub>{cell.strip()}</sub>" if cell else "" for cell in cells]
