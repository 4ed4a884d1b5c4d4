"""Numbers for one case and for many: Dice, HD95 in mm, volumes in ml, voxel counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lora_ext.evaluation.masks import (
    binary_mask,
    dice_from_counts,
    hd95_mm,
    voxel_counts,
)

EMPTY_RULE = (
    "Region empty in the truth: Dice is 1 when the prediction is empty too, else 0. "
    "HD95 is 0 mm when both are empty and undefined (null in JSON, empty in CSV) when exactly "
    "one is; undefined values are left out of the mean HD95 and counted in hd95_undefined."
)


@dataclass(frozen=True)
class RegionMetrics:
    """One region of one case: voxel counts, the voxel's volume in ml and HD95 in mm."""

    intersection_voxels: int
    predicted_voxels: int
    truth_voxels: int
    voxel_ml: float
    hd95_mm: float

    @property
    def dice(self) -> float:
        """Dice of the region, by the rule `EMPTY_RULE` when it is empty."""
        return dice_from_counts(
            2 * self.intersection_voxels, self.predicted_voxels + self.truth_voxels
        )

    @property
    def predicted_ml(self) -> float:
        """Predicted volume in ml."""
        return self.predicted_voxels * self.voxel_ml

    @property
    def truth_ml(self) -> float:
        """True volume in ml."""
        return self.truth_voxels * self.voxel_ml

    def to_dict(self) -> dict[str, float | int]:
        """Return the values that are reported, under the names used in CSV and JSON."""
        return {
            "dice": self.dice,
            "hd95_mm": self.hd95_mm,
            "predicted_ml": self.predicted_ml,
            "truth_ml": self.truth_ml,
            "intersection_voxels": self.intersection_voxels,
            "predicted_voxels": self.predicted_voxels,
            "truth_voxels": self.truth_voxels,
        }


@dataclass(frozen=True)
class CaseMetrics:
    """One case: its name, its spacing in mm and its regions' metrics by region name."""

    case: str
    spacing_mm: tuple[float, ...]
    regions: dict[str, RegionMetrics]

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the regions."""
        return float(np.mean([region.dice for region in self.regions.values()]))

    @property
    def pooled_dice(self) -> float:
        """Dice over all regions' voxels: 2 sum |P and T| / sum (|P| + |T|)."""
        return dice_from_counts(*_pooled_counts(self.regions.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return the case as plain values (undefined HD95 is NaN)."""
        return {
            "case": self.case,
            "spacing_mm": list(self.spacing_mm),
            "mean_dice": self.mean_dice,
            "pooled_dice": self.pooled_dice,
            "regions": {name: region.to_dict() for name, region in self.regions.items()},
        }


def case_metrics(
    prediction: torch.Tensor,
    truth: torch.Tensor,
    spacing: Sequence[float],
    regions: Iterable[str],
    *,
    case: str = "",
) -> CaseMetrics:
    """Measure one case.

    Empty regions: Dice is 1 when truth and prediction are both empty and 0 when only the truth
    is (MONAI's `DiceMetric(ignore_empty=False)`, the BraTS challenge's convention); HD95 is
    0 mm when both are empty and NaN when exactly one is.

    HD95 is MONAI's: the larger of the two directed 95th percentiles of the distances between
    border voxels.

    Args:
        prediction: binary masks (R, H, W, D), the threshold already applied.
        truth: binary masks (R, H, W, D).
        spacing: voxel size in mm along H, W and D.
        regions: the R region names in channel order, or a mapping with them as keys.
        case: the case's name.

    Returns:
        The case's metrics.

    Raises:
        ValueError: shapes, values, spacing or the number of regions do not fit.
    """
    names = list(regions)
    predicted, true = binary_mask(prediction, "prediction"), binary_mask(truth, "truth")
    if predicted.ndim != 4 or predicted.shape[0] != len(names):
        raise ValueError(
            f"{case or 'case'}: prediction has shape {tuple(predicted.shape)}; "
            f"expected (R, H, W, D) with R = {len(names)} ({', '.join(names)})"
        )
    size = _checked_spacing(spacing, case)
    counts = voxel_counts(predicted, true).tolist()
    distances = hd95_mm(predicted, true, size)
    voxel_ml = math.prod(size) / 1000.0
    measured = {
        name: RegionMetrics(both, predicted_voxels, truth_voxels, voxel_ml, distance)
        for name, (both, predicted_voxels, truth_voxels), distance in zip(
            names, counts, distances, strict=True
        )
    }
    return CaseMetrics(case, size, measured)


def summary(cases: Sequence[CaseMetrics]) -> dict[str, Any]:
    """Sum up many cases.

    `mean_dice` is the mean over regions of the mean over cases; `pooled_dice` pools all cases'
    and regions' voxels (2 sum |P and T| / sum (|P| + |T|)). Every `_std` is the sample standard
    deviation over cases (n - 1) and NaN for one case.

    Args:
        cases: at least one case, all with the same regions.

    Returns:
        `cases` (their number), `mean_dice`, `mean_dice_std`, `pooled_dice`, `pooled_dice_std`
        and `regions`: per region `dice`, `dice_std`, `hd95_mm`, `hd95_mm_std` (mm, over the
        defined ones; NaN when there are none) and `hd95_undefined` (a number of cases).

    Raises:
        ValueError: no case, or cases with different regions.
    """
    if not cases:
        raise ValueError("no case was measured; at least 1 is needed")
    names = list(cases[0].regions)
    for case in cases:
        if list(case.regions) != names:
            raise ValueError(f"{case.case}: regions {list(case.regions)}; expected {names}")
    regions = {name: _region_summary([case.regions[name] for case in cases]) for name in names}
    every_region = [region for case in cases for region in case.regions.values()]
    return {
        "cases": len(cases),
        "mean_dice": float(np.mean([region["dice"] for region in regions.values()])),
        "mean_dice_std": _std([case.mean_dice for case in cases]),
        "pooled_dice": dice_from_counts(*_pooled_counts(every_region)),
        "pooled_dice_std": _std([case.pooled_dice for case in cases]),
        "regions": regions,
    }


def _region_summary(measured: Sequence[RegionMetrics]) -> dict[str, float | int]:
    dice = [region.dice for region in measured]
    defined = [region.hd95_mm for region in measured if not math.isnan(region.hd95_mm)]
    return {
        "dice": float(np.mean(dice)),
        "dice_std": _std(dice),
        "hd95_mm": float(np.mean(defined)) if defined else math.nan,
        "hd95_mm_std": _std(defined),
        "hd95_undefined": len(measured) - len(defined),
    }


def _std(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _pooled_counts(regions: Iterable[RegionMetrics]) -> tuple[int, int]:
    measured = list(regions)
    return (
        2 * sum(region.intersection_voxels for region in measured),
        sum(region.predicted_voxels + region.truth_voxels for region in measured),
    )


def _checked_spacing(spacing: Sequence[float], case: str) -> tuple[float, ...]:
    size = tuple(float(value) for value in spacing)
    if len(size) != 3 or not all(math.isfinite(value) and value > 0 for value in size):
        raise ValueError(f"{case or 'case'}: spacing is {size}; expected 3 positive values in mm")
    return size
