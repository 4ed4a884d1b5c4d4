"""Binary masks compared: voxel counts, Dice and the 95th percentile Hausdorff distance."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from monai.metrics import compute_hausdorff_distance
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
