"""Results as pages to read: table1.md, table2.md, comparisons.md and comparisons.json."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_ext.study.comparisons import write_comparisons
from lora_ext.study.costs import write_table2
from lora_ext.study.legends import DICE_RULES
from lora_ext.study.markdown import change, dice, small, table
from lora_ext.study.page import write_tables_page
from lora_ext.study.paper import PAPER_TABLE_1, measure_title, regime_title
from lora_ext.study.statistics import Record, measures, percent_change, ranking, references, spread

MARK_RULE = (
    "**Bold** is the best of a row, <u>underlined</u> the second-best, compared as printed. "
    "Reference networks (in *italics*) take part only where they beat every regime."
)


def write_tables(results: Mapping[str, Any], out: str | os.PathLike[str]) -> list[Path]:
    """Write the study's tables.

    Args:
        results: the content of results.json.
        out: the folder to write to.

    Returns:
        The files: table1.md, table2.md, comparisons.md, comparisons.json.
    """
    folder = Path(out)
    return [
        write_table1(results, folder / "table1.md"),
        write_table2(results, folder / "table2.md"),
        *write_comparisons(results, folder),
    ]


def write_table1(results: Mapping[str, Any], path: Path) -> Path:
    """Write the Dice of all regimes, beside the paper's Table 1.

    Args:
        results: the content of results.json.
        path: the file to write.
    """
    legend = [
        "Each cell is the mean over runs ± their sample standard deviation over seeds and folds "
        "(none for a single run); a seed also decides which cases are in which fold. "
        "In parentheses: the change of the mean against Baseline in %, "
        "↑ better, ↓ worse.",
        MARK_RULE,
        *DICE_RULES,
    ]
    return write_tables_page(path, "Dice by regime", results, table1, legend)


def table1(dataset: str, regimes: Mapping[str, Sequence[Record]]) -> str:
    """Lay out one data set's Dice: measures down, regimes across, the paper's cells below each.

    Args:
        dataset: its name.
        regimes: its runs by regime.
    """
    outside = references(regimes)
    rows = []
    for measure in measures(regimes):
        rows.append([f"**{measure_title(measure)}**", *_cells(regimes, measure, outside)])
        paper = PAPER_TABLE_1.get(dataset, {}).get(measure)
        if paper:
            rows.append([small("paper"), *(small(_paper_cell(paper, name)) for name in regimes)])
    heads = [
        f"*{regime_title(name)}*" if name in outside else regime_title(name) for name in regimes
    ]
    return table(["Dice", *heads], rows)


def _cells(regimes: Mapping[str, Sequence[Record]], measure: str, outside: set[str]) -> list[str]:
    values = {name: spread(runs, measure) for name, runs in regimes.items()}
    marks = ranking({name: value.mean for name, value in values.items()}, outside)
    baseline = values["baseline"].mean if "baseline" in values else math.nan
    return [
        " ".join(
            part
            for part in (
                dice(value, marks.get(name)),
                "" if name == "baseline" else change(percent_change(value.mean, baseline)),
            )
            if part
        )
        for name, value in values.items()
    ]


def _paper_cell(paper: Mapping[str, float], regime: str) -> str:
    if regime not in paper:
        return ""
    percent = math.nan
    if regime != "baseline":
        percent = percent_change(paper[regime], paper["baseline"])
    return f"{paper[regime]:.4f} {change(percent)}".strip()
