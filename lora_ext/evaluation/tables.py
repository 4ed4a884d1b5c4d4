"""Measured cases as files and text: cases.csv, metrics.json and the table in the log."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any

import pandas as pd

from lora_ext.data.regions import Regions
from lora_ext.evaluation.metrics import EMPTY_RULE, CaseMetrics, case_table, summary
from lora_ext.files import whole_file

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a formula may begin with


def write_csv(path: str | os.PathLike[str], cases: Sequence[CaseMetrics]) -> None:
    """Write the `case_table`, one row per case and region; undefined values are empty.

    A text that a spreadsheet would take for a formula begins with an apostrophe.

    Args:
        path: the file to write.
        cases: the measured cases.
    """
    with whole_file(path) as draft:
        table = case_table(cases).map(_as_text)
        table.to_csv(draft, index=False, lineterminator="\r\n")


def write_json(
    path: str | os.PathLike[str],
    cases: Sequence[CaseMetrics],
    regions: Regions,
    encoder: str | None = None,
    seen: Sequence[str] = (),
) -> None:
    """Write what `report.html` shows, for programs; undefined values are null.

    The keys are `encoder`, `seen_in_training`, `regions`, `empty_rule`, `summary` and `cases`.

    Args:
        path: the file to write.
        cases: the measured cases.
        regions: region name -> labels it is made of.
        encoder: what the network's encoder was trained from; None where that is unknown.
        seen: names of cases that the network was trained on.
    """
    content = {
        "encoder": encoder,
        "seen_in_training": list(seen),
        "regions": {name: list(labels) for name, labels in regions.items()},
        "empty_rule": EMPTY_RULE,
        "summary": summary(cases),
        "cases": [case.to_dict() for case in cases],
    }
    with whole_file(path) as draft:
        text = json.dumps(without_nan(content), indent=2, allow_nan=False)
        draft.write_text(text + "\n", encoding="utf-8")


def _as_text(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def text_table(cases: Sequence[CaseMetrics]) -> str:
    """Return an aligned table: one line per case, then the means and the mean HD95 in mm.

    Columns are Dice per region, their mean and the pooled Dice. The last line ends with how many
    cases have no HD95, per region.

    Args:
        cases: the measured cases.
    """
    total = summary(cases)
    regions = pd.DataFrame(total["regions"])  # a column per region
    means = {**regions.loc["dice"], "mean": total["mean_dice"], "pooled": total["pooled_dice"]}
    rows = [
        {
            **{name: region.dice for name, region in case.regions.items()},
            "mean": case.mean_dice,
            "pooled": case.pooled_dice,
        }
        for case in cases
    ]
    table = pd.DataFrame([*rows, means]).map(fixed, digits=3)
    table.loc[len(table)] = regions.loc["hd95_mm"].map(lambda mm: fixed(mm, 1))
    table.index = pd.Index([*(case.case for case in cases), "Dice", "HD95 mm"])
    table.columns.name = "case"
    text = table.to_string(na_rep="", col_space=7)
    undefined = {name: int(count) for name, count in regions.loc["hd95_undefined"].items()}
    if any(undefined.values()):
        counts = ", ".join(f"{name} {count}" for name, count in undefined.items() if count)
        text = f"{text.rstrip()}  (undefined: {counts})"
    return text


def fixed(value: float, digits: int) -> str:
    """Format a number with `digits` digits after the point; ``-`` where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def without_nan(value: Any) -> Any:
    """Replace NaN by None in nested dictionaries and lists."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
