"""Dice, 95th percentile Hausdorff distance (HD95) and volumes, for one case and for many.

Everything is computed from voxel counts of binary masks, except HD95.
`PooledDice` is the key metric of training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import get_mask_edges
from monai.utils import convert_to_tensor
from scipy.spatial import KDTree

EMPTY_RULE = (
    "Region empty in the ground truth: Dice is 1 when the prediction is empty too, else 0. "
    "HD95 is 0 mm when both are empty and undefined (null in JSON, empty in CSV) when exactly "
    "one is; undefined values are left out of the mean HD95 and counted in hd95_undefined."
)


def binary_mask(values: torch.Tensor, name: str) -> torch.Tensor:
    """Return masks as plain booleans, so that probabilities cannot pass for masks.

    Args:
        values: zeros and ones of any shape and type.
        name: what they are, for the error.

    Returns:
        A boolean tensor of the same shape, without metadata.

    Raises:
        ValueError: if a value is neither 0 nor 1.
    """
    tensor = convert_to_tensor(values, track_meta=False)
    if tensor.dtype == torch.bool:
        return tensor
    mask = tensor == 1
    if not bool((mask | (tensor == 0)).all()):
        raise ValueError(
            f"{name}: expected a binary mask with only 0 and 1, got values from "
            f"{float(tensor.min()):g} to {float(tensor.max()):g}; apply the threshold first"
        )
    return mask


def dice_from_counts(twice_intersection: int, total: int) -> float:
    """Compute Dice from voxel counts; it is 1 when prediction and ground truth are both empty.

    Args:
        twice_intersection: 2 |P and T|, in voxels.
        total: |P| + |T|, in voxels.

    Returns:
        Dice between 0 and 1.
    """
    return twice_intersection / total if total else 1.0


def voxel_counts(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Count the voxels of the intersection, the prediction and the ground truth.

    Args:
        prediction: binary masks (..., H, W, D).
        truth: binary masks of the same shape.

    Returns:
        Integers of shape (..., 3): |P and T|, |P|, |T|.

    Raises:
        ValueError: if the shapes differ, or a value is neither 0 nor 1.
    """
    predicted, true = binary_mask(prediction, "prediction"), binary_mask(truth, "ground truth")
    if predicted.shape != true.shape:
        raise ValueError(
            f"expected prediction and ground truth of one shape, got {tuple(predicted.shape)} "
            f"and {tuple(true.shape)}"
        )
    counts = [mask.sum(dim=(-3, -2, -1)) for mask in (predicted & true, predicted, true)]
    return torch.stack(counts, dim=-1)


def hd95_mm(prediction: torch.Tensor, truth: torch.Tensor, axes: np.ndarray) -> list[float]:
    """Compute the 95th percentile Hausdorff distance of each region.

    The larger of the two directed 95th percentiles of the distances between border voxels, as in
    MONAI's `compute_hausdorff_distance`, which knows no sheared axes.

    Args:
        prediction: boolean masks (R, H, W, D).
        truth: boolean masks of the same shape.
        axes: a step along H, W and D in mm, the columns of (3, 3).

    Returns:
        R values in mm: 0 where both masks are empty, NaN where exactly one is.
    """
    distances = []
    for predicted, true in zip(prediction.cpu().numpy(), truth.cpu().numpy(), strict=True):
        if not predicted.any() or not true.any():
            distances.append(math.nan if (predicted | true).any() else 0.0)
            continue
        first, second = (np.argwhere(edges) @ axes.T for edges in get_mask_edges(predicted, true))
        directed = (KDTree(to).query(of)[0] for of, to in ((first, second), (second, first)))
        distances.append(max(float(np.percentile(mm, 95)) for mm in directed))
    return distances


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
        """Dice of the region, by `EMPTY_RULE` where it is empty."""
        return dice_from_counts(
            2 * self.intersection_voxels, self.predicted_voxels + self.truth_voxels
        )

    @property
    def predicted_ml(self) -> float:
        """Predicted volume in ml."""
        return self.predicted_voxels * self.voxel_ml

    @property
    def truth_ml(self) -> float:
        """Ground-truth volume in ml."""
        return self.truth_voxels * self.voxel_ml

    def to_dict(self) -> dict[str, float | int]:
        """Return the reported values under the names used in CSV and JSON."""
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
        return sum(region.dice for region in self.regions.values()) / len(self.regions)

    @property
    def pooled_dice(self) -> float:
        """Dice over all regions' voxels: 2 sum |P and T| / sum (|P| + |T|)."""
        return _pooled_dice(self.regions.values())

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

    An empty region has Dice 1 when it is predicted empty too, else 0 (MONAI's
    `DiceMetric(ignore_empty=False)`, the BraTS challenge's convention); HD95 is 0 mm when both
    masks are empty and NaN when exactly one is.

    Args:
        prediction: binary masks (R, H, W, D), the threshold already applied.
        truth: binary masks (R, H, W, D).
        spacing: voxel size in mm along H, W and D; where `truth` is a MetaTensor its affine says
            more, since the axes of an image may be sheared.
        regions: the R region names in channel order, or a mapping with them as keys.
        case: the case's name.

    Returns:
        The case's metrics.

    Raises:
        ValueError: if shapes, values, spacing or the number of regions do not fit.
    """
    names = list(regions)
    predicted, true = binary_mask(prediction, "prediction"), binary_mask(truth, "ground truth")
    if predicted.ndim != 4 or predicted.shape[0] != len(names):
        raise ValueError(
            f"{case or 'case'}: expected a prediction (R, H, W, D) with R = {len(names)} "
            f"({', '.join(names)}), got the shape {tuple(predicted.shape)}"
        )
    size = _checked_spacing(spacing, case)
    counts = voxel_counts(predicted, true).tolist()
    axes = truth.affine[:3, :3].cpu().numpy() if isinstance(truth, MetaTensor) else np.diag(size)
    distances = hd95_mm(predicted, true, axes)
    voxel_ml = abs(float(np.linalg.det(axes))) / 1000.0
    measured = {
        name: RegionMetrics(both, predicted_voxels, true_voxels, voxel_ml, distance)
        for name, (both, predicted_voxels, true_voxels), distance in zip(
            names, counts, distances, strict=True
        )
    }
    return CaseMetrics(case, size, measured)


def case_table(cases: Sequence[CaseMetrics]) -> pd.DataFrame:
    """Return one row per case and region, in the order of `cases` and of their regions.

    Args:
        cases: at least one case, all with the same regions.

    Returns:
        The columns case, region, those of `RegionMetrics.to_dict`, and the case's own
        case_mean_dice and case_pooled_dice, repeated on its rows.

    Raises:
        ValueError: if there is no case, or cases have different regions.
    """
    if not cases:
        raise ValueError("no case was measured: expected at least 1, got 0")
    names = list(cases[0].regions)
    for case in cases:
        if list(case.regions) != names:
            raise ValueError(f"{case.case}: expected the regions {names}, got {list(case.regions)}")
    return pd.DataFrame(
        {
            "case": case.case,
            "region": name,
            **region.to_dict(),
            "case_mean_dice": case.mean_dice,
            "case_pooled_dice": case.pooled_dice,
        }
        for case in cases
        for name, region in case.regions.items()
    )


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
        ValueError: if there is no case, or cases have different regions.
    """
    # pandas leaves undefined distances out of means and deviations.
    by_region = case_table(cases).groupby("region", sort=False)
    per_region = pd.DataFrame(
        {
            "dice": by_region["dice"].mean(),
            "dice_std": by_region["dice"].std(),
            "hd95_mm": by_region["hd95_mm"].mean(),
            "hd95_mm_std": by_region["hd95_mm"].std(),
            "hd95_undefined": by_region["hd95_mm"].agg(lambda mm: int(mm.isna().sum())),
        }
    )
    return {
        "cases": len(cases),
        "mean_dice": float(per_region["dice"].mean()),
        "mean_dice_std": float(pd.Series([case.mean_dice for case in cases]).std()),
        "pooled_dice": _pooled_dice(region for case in cases for region in case.regions.values()),
        "pooled_dice_std": float(pd.Series([case.pooled_dice for case in cases]).std()),
        "regions": per_region.to_dict(orient="index"),
    }


def _pooled_dice(regions: Iterable[RegionMetrics]) -> float:
    measured = list(regions)
    return dice_from_counts(
        2 * sum(region.intersection_voxels for region in measured),
        sum(region.predicted_voxels + region.truth_voxels for region in measured),
    )


def _checked_spacing(spacing: Sequence[float], case: str) -> tuple[float, ...]:
    size = tuple(float(value) for value in spacing)
    if len(size) != 3 or not all(math.isfinite(value) and value > 0 for value in size):
        raise ValueError(
            f"{case or 'case'}: expected a spacing of 3 positive values in mm, got {size}"
        )
    return size


class PooledDice(CumulativeIterationMetric):
    """Dice pooled over all voxels of all regions of all cases.

    That is 2 sum |P and T| / sum (|P| + |T|), and 1 where both are empty everywhere. It is used
    as MONAI's `DiceMetric` is: call it with binary batches (or lists of channel-first masks),
    then `aggregate()`. Each case adds one row [2 |P and T|, |P| + |T|] of voxel counts; the rows
    of all ranks are gathered (a case that a sampler gave to two ranks counts twice, as in every
    MONAI metric). In training:

        IgniteMetricHandler(PooledDice(), output_transform=from_engine(["pred", "label"]))
    """

    def _compute_tensor(
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Count one batch of masks.

        Args:
            y_pred: binary predictions (B, R, H, W, D).
            y: binary ground truth of the same shape.
            **kwargs: unused; part of MONAI's signature.

        Returns:
            Integers of shape (B, 2): 2 |P and T| and |P| + |T| over the regions.

        Raises:
            ValueError: if `y` is missing, the shapes differ, or a value is neither 0 nor 1.
        """
        if y is None:
            raise ValueError("PooledDice: expected (prediction, ground truth), got no ground truth")
        intersection, predicted, true = voxel_counts(y_pred, y).sum(dim=1).unbind(dim=-1)
        return torch.stack([2 * intersection, predicted + true], dim=-1)

    def aggregate(self) -> float:
        """Return the Dice over everything counted since the last `reset()`, on all ranks.

        Raises:
            ValueError: if nothing was counted.
        """
        counts = self.get_buffer()
        if counts is None:
            raise ValueError("PooledDice has counted no case; call it before aggregate()")
        return dice_from_counts(*counts.sum(dim=0).tolist())
