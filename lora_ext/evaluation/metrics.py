"""Binary masks compared: voxel counts, Dice and the 95th percentile Hausdorff distance.

Numbers for one case and for many: Dice, HD95 in mm, volumes in ml, voxel counts.

The key metric of training: one Dice pooled over all cases' and regions' voxels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric, compute_hausdorff_distance
from monai.utils import convert_to_tensor


def binary_mask(values: torch.Tensor, name: str) -> torch.Tensor:
    """Return plain boolean masks; probabilities must not pass as if they were masks.

    Args:
        values: zeros and ones of any shape and type.
        name: what they are, for the error.

    Returns:
        A boolean tensor of the same shape, without meta data.

    Raises:
        ValueError: a value is neither 0 nor 1.
    """
    tensor = convert_to_tensor(values, track_meta=False)
    if tensor.dtype == torch.bool:
        return tensor
    mask = tensor == 1
    if not bool((mask | (tensor == 0)).all()):
        raise ValueError(
            f"{name} has values from {float(tensor.min()):g} to {float(tensor.max()):g}; "
            "a binary mask has only 0 and 1"
        )
    return mask


def dice_from_counts(twice_intersection: int, total: int) -> float:
    """Return `twice_intersection / total`, and 1 when prediction and truth are both empty.

    Args:
        twice_intersection: 2 |P and T|, in voxels.
        total: |P| + |T|, in voxels.

    Returns:
        Dice between 0 and 1.
    """
    return twice_intersection / total if total else 1.0


def voxel_counts(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Count intersection, predicted and true voxels.

    Args:
        prediction: binary masks (..., H, W, D).
        truth: binary masks of the same shape.

    Returns:
        Whole numbers of shape (..., 3): |P and T|, |P|, |T|.

    Raises:
        ValueError: the shapes differ, or a value is neither 0 nor 1.
    """
    predicted, true = binary_mask(prediction, "prediction"), binary_mask(truth, "truth")
    if predicted.shape != true.shape:
        raise ValueError(
            f"prediction has shape {tuple(predicted.shape)}; truth has {tuple(true.shape)}"
        )
    counts = [mask.sum(dim=(-3, -2, -1)) for mask in (predicted & true, predicted, true)]
    return torch.stack(counts, dim=-1)


def hd95_mm(prediction: torch.Tensor, truth: torch.Tensor, spacing: Sequence[float]) -> list[float]:
    """Return the 95th percentile Hausdorff distance in mm, region by region.

    It is MONAI's: the larger of the two directed 95th percentiles of the distances between
    border voxels.

    Args:
        prediction: boolean masks (R, H, W, D).
        truth: boolean masks of the same shape.
        spacing: voxel size in mm along H, W and D.

    Returns:
        R values in mm: 0 where both masks are empty, NaN where exactly one is.
    """
    prediction, truth = _cropped(prediction, truth)
    distances = []
    for predicted, true in zip(prediction, truth, strict=True):
        if bool(predicted.any()) and bool(true.any()):
            distances.append(_hd95_mm(predicted, true, spacing))
        else:
            distances.append(math.nan if bool(predicted.any() | true.any()) else 0.0)
    return distances


def _hd95_mm(predicted: torch.Tensor, true: torch.Tensor, spacing: Sequence[float]) -> float:
    with warnings.catch_warnings():
        # MONAI 1.6.1 warns of an argument that it passes to itself.
        warnings.filterwarnings(
            "ignore", message=".*always_return_as_numpy", category=FutureWarning
        )
        hd95 = compute_hausdorff_distance(
            predicted[None, None],
            true[None, None],
            include_background=True,
            percentile=95,
            spacing=list(spacing),
        )
    return float(hd95)


def _cropped(prediction: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut both to the box around all masks: less memory, same borders and distances."""
    foreground = (prediction | truth).any(dim=0).nonzero()
    if len(foreground) == 0:
        return prediction.cpu(), truth.cpu()
    low, high = foreground.amin(dim=0).tolist(), (foreground.amax(dim=0) + 1).tolist()
    box = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
    # On the CPU the distances come from a k-d tree of border voxels, on every machine alike.
    return prediction[box].cpu(), truth[box].cpu()


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


class PooledDice(CumulativeIterationMetric):
    """Dice pooled over all voxels of all regions of all cases.

    That is 2 sum |P and T| / sum (|P| + |T|), and 1 where nothing is true and nothing predicted.
    It is used as MONAI's `DiceMetric` is: call it with binary batches (or lists of channel-first
    masks), then `aggregate()`. Each case adds one row [2 |P and T|, |P| + |T|] of voxel counts;
    the rows of all ranks are gathered (a case that a sampler gave to two ranks counts twice, as in
    every MONAI metric). In training:

        IgniteMetricHandler(PooledDice(), output_transform=from_engine(["pred", "label"]))
    """

    def _compute_tensor(
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Count one batch of masks (B, R, H, W, D).

        Args:
            y_pred: binary predictions.
            y: binary truth of the same shape.
            kwargs: unused; part of MONAI's signature.

        Returns:
            Whole numbers of shape (B, 2): 2 |P and T| and |P| + |T| over the regions.

        Raises:
            ValueError: `y` is missing, shapes differ, or a value is neither 0 nor 1.
        """
        if y is None:
            raise ValueError("PooledDice got no truth; call it with (prediction, truth)")
        intersection, predicted, true = voxel_counts(y_pred, y).sum(dim=1).unbind(dim=-1)
        return torch.stack([2 * intersection, predicted + true], dim=-1)

    def aggregate(self) -> float:
        """Return the Dice over everything counted since the last `reset()`, on all ranks.

        Raises:
            ValueError: nothing was counted.
        """
        counts = self.get_buffer()
        if counts is None:
            raise ValueError("PooledDice has counted no case; call it before aggregate()")
        return dice_from_counts(*counts.sum(dim=0).tolist())
