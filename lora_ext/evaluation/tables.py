"""Measured cases as files and text: cases.csv, metrics.json and the table in the log."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from typing import Any

from lora_ext.data.regions import Regions
from lora_ext.evaluation.metrics import EMPTY_RULE, CaseMetrics, summary
from lora_ext.files import whole_file


def write_csv(path: str | os.PathLike[str], cases: Sequence[CaseMetrics]) -> None:
    """Write one row per case and region.

    The columns are case, region, the region's values (dice, hd95_mm, predicted_ml, truth_ml and
    the three voxel counts), and the case's own case_mean_dice and case_pooled_dice, repeated on
    its rows. Undefined values are empty.

    Args:
        path: the file to write.
        cases: the measured cases.
    """
    rows = [
        {
            "case": case.case,
            "region": name,
            **region.to_dict(),
            "case_mean_dice": case.mean_dice,
            "case_pooled_dice": case.pooled_dice,
        }
        for case in cases
        for name, region in case.regions.items()
    ]
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(without_nan(row) for row in rows)


def write_json(
    path: str | os.PathLike[str],
    cases: Sequence[CaseMetrics],
    regions: Regions,
    encoder: str | None = None,
) -> None:
    """Write `encoder`, `regions`, `empty_rule`, `summary` and `cases`; undefined values are null.

    Args:
        path: the file to write.
        cases: the measured cases.
        regions: region name -> labels it is made of.
        encoder: what the network's encoder was trained from, if that is known.
    """
    content = {
        "encoder": encoder,
        "regions": {name: list(labels) for name, labels in regions.items()},
        "empty_rule": EMPTY_RULE,
        "summary": summary(cases),
        "cases": [case.to_dict() for case in cases],
    }
    with whole_file(path) as temporary:
        text = json.dumps(without_nan(content), indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def text_table(cases: Sequence[CaseMetrics]) -> str:
    """Return an aligned table: one line per case, then the means and the mean HD95 in mm.

    Columns are Dice per region, their mean and the pooled Dice. The last line ends with how many
    cases have no HD95, per region.

    Args:
        cases: the measured cases.
    """
    total = summary(cases)
    regions = total["regions"]
    rows = [["case", *regions, "mean", "pooled"]]
    for case in cases:
        dice = [region.dice for region in case.regions.values()]
        rows.append([case.case, *_fixed([*dice, case.mean_dice, case.pooled_dice], 3)])
    dice = [region["dice"] for region in regions.values()]
    rows.append(["Dice", *_fixed([*dice, total["mean_dice"], total["pooled_dice"]], 3)])
    rows.append(["HD95 mm", *_fixed([region["hd95_mm"] for region in regions.values()], 1)])
    lines = _aligned(rows)
    undefined = {name: region["hd95_undefined"] for name, region in regions.items()}
    if any(undefined.values()):
        counts = ", ".join(f"{name} {count}" for name, count in undefined.items() if count)
        lines[-1] += f"  (undefined: {counts})"
    return "\n".join(lines)


def fixed(value: float, digits: int) -> str:
    """A number with a fixed count of digits after the point; ``-`` where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _fixed(values: Sequence[float], digits: int) -> list[str]:
    return [fixed(value, digits) for value in values]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    first = max(len(row[0]) for row in rows)
    widths = [max(6, len(name)) for name in rows[0][1:]]
    lines = []
    for row in rows:
        # The HD95 line is shorter: it has no mean and no pooled value.
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths, strict=False)]
        lines.append("  ".join([row[0].ljust(first), *cells]))
    return lines


def without_nan(value: Any) -> Any:
    """Replace NaN by None, all the way down."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
