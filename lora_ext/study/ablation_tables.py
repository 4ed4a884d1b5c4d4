"""ablation.md: a row per variant, and the rules behind the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_ext.study.legends import DICE_RULES, failed_block, provenance, settings_line
from lora_ext.study.markdown import NONE, bullets, dice, table, write_page
from lora_ext.study.paper import dataset_title, measure_title
from lora_ext.study.pretrained import encoder_line
from lora_ext.study.statistics import Spread, ranking
from lora_ext.study.variants import PLACEMENT_RANK

MAIN = "pooled_dice"
SCALING_TITLES = {"rank_stabilised": "rank-stabilised", "classical": "classical"}
LEGEND = (
    "Rank-stabilised adapters are scaled by alpha / √r (Kalajdzievski 2023), classical ones by "
    "alpha / r (Hu et al. 2021).",
    "The scalings are compared at every rank with the bundle's own placement, the placements at "
    f"rank {PLACEMENT_RANK} with rank-stabilised scaling. A placement names the linear layers of "
    "every transformer block that have adapters.",
    "Dice is the mean over runs ± their sample standard deviation over seeds and folds (none for "
    "a single run). **Bold** is the best of all variants, <u>underlined</u> the second-best, "
    "compared as printed; without a spread, or within it, that is no evidence.",
    *DICE_RULES[:1],
    "**Pooled** (`pooled_dice`) is one Dice over all voxels of all regions and all cases, "
    "2 Σ\\|P∩T\\| / Σ(\\|P\\| + \\|T\\|), so large regions count for more.",
    "Adapters and all trainable parameters (adapters, fusion, decoder) are in millions (M).",
    "Seconds per step: the median time of a training epoch in the log (which knows 0.1 s) over its "
    "number of steps, mean over runs; reading data is in it, validation and start-up are not.",
)


def write_ablation_page(summary: Mapping[str, Any], merged: Mapping[str, Any], path: Path) -> Path:
    """Write the table of variants.

    Args:
        summary: the content of ablation.json.
        merged: all variants' results as one, see `merge`.
        path: the file to write.
    """
    dataset = summary["dataset"]
    notes = [settings_line(merged, dataset), encoder_line(merged, dataset)]
    blocks = [
        f"# Rank, scaling and placement of the adapters: {dataset_title(dataset)}",
        provenance(merged),
        variants_table(summary),
        " ".join(note for note in [f"Bundle: `{summary['bundle']}`.", *notes] if note),
        failed_block(merged),
        "## Legend",
        bullets([f"`lora_alpha` is {summary['lora_alpha']:g} at all ranks.", *LEGEND]),
    ]
    return write_page(path, blocks)


def variants_table(summary: Mapping[str, Any]) -> str:
    """Lay the variants out, a row each.

    Args:
        summary: the content of ablation.json.
    """
    measures = (MAIN, *summary["regions"])
    marks = {name: _marks(summary, name) for name in measures}
    head = (
        *("Placement", "Rank", "Scaling", *map(measure_title, measures)),
        *("Adapters (M)", "Trainable (M)", "Seconds per step", "Runs"),
    )
    rows = [
        [
            ", ".join(row["targets"]),
            str(row["rank"]),
            SCALING_TITLES[row["scaling"]],
            *(dice(_spread(row["dice"][m]), marks[m].get(row["name"])) for m in measures),
            *(_millions(row["parameters"][key]) for key in ("adapters", "trainable")),
            _seconds(row["seconds_per_step"]["mean"]),
            str(row["runs"]) + (f" ({row['failed']} failed)" if row["failed"] else ""),
        ]
        for row in summary["variants"]
    ]
    return table(head, rows)


def _marks(summary: Mapping[str, Any], measure: str) -> dict[str, int]:
    return ranking({r["name"]: _spread(r["dice"][measure]).mean for r in summary["variants"]})


def _spread(numbers: Mapping[str, Any]) -> Spread:
    mean, std = (math.nan if numbers[k] is None else numbers[k] for k in ("mean", "std"))
    return Spread(tuple(numbers["values"]), mean, std)


def _millions(count: int | None) -> str:
    return NONE if count is None else f"{count / 1e6:.3f}"


def _seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}"
