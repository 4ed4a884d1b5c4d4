"""HD95 and counts against brute force, an analytic case and MONAI on the uncropped volume."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import compute_hausdorff_distance
from scipy.spatial.distance import cdist

from lora_ext.evaluation.metrics import binary_mask, dice_from_counts, hd95_mm, voxel_counts

SPACING = (0.6, 1.0, 3.5)


def blobs(seed: int, shape: tuple[int, ...] = (9, 8, 7), share: float = 0.3) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def border_mm(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Points in mm of the voxels that touch background or the outside through a face."""
    padded = np.pad(mask, 1)
    points = []
    for voxel in itertools.product(*map(range, mask.shape)):
        if not mask[voxel]:
            continue
        centre = np.array(voxel) + 1
        steps = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
        if not all(padded[tuple(centre + step)] for step in steps):
            points.append(np.array(voxel) * spacing)
    return np.array(points)


def brute_force_hd95(a: torch.Tensor, b: torch.Tensor, spacing: tuple[float, ...]) -> float:
    distances = cdist(border_mm(a.numpy(), spacing), border_mm(b.numpy(), spacing))
    return max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))


@pytest.mark.parametrize("seed", range(5))
def test_hd95_agrees_with_brute_force_over_all_border_voxels(seed: int) -> None:
    a, b = blobs(seed, share=0.05), blobs(seed + 100, share=0.6)
    assert hd95_mm(a[None], b[None], SPACING) == [
        pytest.approx(brute_force_hd95(a, b, SPACING), rel=1e-5)
    ]


@pytest.mark.parametrize(("axis", "voxels"), [(0, 3), (1, 2), (2, 1)])
def test_hd95_of_a_shifted_plate_is_the_shift_in_mm(axis: int, voxels: int) -> None:
    # Of a flat plate, shifted across its surface, every voxel is the shift away.
    plate = torch.zeros(12, 12, 12, dtype=torch.bool)
    where = [slice(3, 9)] * 3
    where[axis] = slice(4, 5)
    plate[tuple(where)] = True
    shifted = plate.roll(voxels, dims=axis)
    expected = voxels * SPACING[axis]
    assert hd95_mm(plate[None], shifted[None], SPACING) == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("offset", [(0, 0, 0), (5, 3, 2), (11, 12, 13)])
def test_the_crop_does_not_change_hd95_even_at_the_volume_border(
    offset: tuple[int, ...],
) -> None:
    prediction, truth = torch.zeros(2, 2, 20, 20, 20, dtype=torch.bool)
    box = (slice(None), *(slice(o, o + n) for o, n in zip(offset, (9, 8, 7), strict=True)))
    prediction[box] = torch.stack([blobs(1), blobs(2, share=0.1)])
    truth[box] = torch.stack([blobs(3), blobs(4, share=0.7)])
    whole = compute_hausdorff_distance(
        prediction[None], truth[None], include_background=True, percentile=95, spacing=SPACING
    )
    assert hd95_mm(prediction, truth, SPACING) == whole[0].tolist()


def test_hd95_is_zero_when_both_are_empty_and_undefined_when_one_is() -> None:
    empty, full = torch.zeros(4, 4, 4, dtype=torch.bool), torch.ones(4, 4, 4, dtype=torch.bool)
    prediction = torch.stack([empty, full, empty, full])
    truth = torch.stack([empty, empty, full, full])
    both, predicted_only, true_only, same = hd95_mm(prediction, truth, SPACING)
    assert (both, same) == (0.0, 0.0)
    assert math.isnan(predicted_only)
    assert math.isnan(true_only)
    assert hd95_mm(empty[None], empty[None], SPACING) == [0.0]


def test_voxels_are_counted_per_batch_item_and_region() -> None:
    prediction, truth = torch.zeros(2, 2, 2, 3, 3, 3)
    prediction[0, 0, 0, 0, :] = 1
    truth[0, 0, 0, 0, 1:] = 1
    truth[1, 1] = 1
    assert voxel_counts(prediction, truth).tolist() == [
        [[2, 3, 2], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 27]],
    ]


def test_probabilities_are_refused_as_masks() -> None:
    with pytest.raises(ValueError, match=r"prediction has values from 0 to 0\.25"):
        binary_mask(torch.tensor([0.0, 0.25]), "prediction")


def test_nan_is_refused_in_a_mask() -> None:
    with pytest.raises(ValueError, match="truth has values"):
        binary_mask(torch.tensor([0.0, math.nan]), "truth")


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.float16, torch.bool])
def test_masks_of_any_type_become_plain_booleans(kind: torch.dtype) -> None:
    mask = binary_mask(MetaTensor(torch.tensor([1, 0, 1]).to(kind)), "truth")
    assert type(mask) is torch.Tensor
    assert mask.tolist() == [True, False, True]


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 2, 2, 2\); truth has \(1, 2, 2, 3\)"):
        voxel_counts(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 3))


def test_dice_of_nothing_and_nothing_is_one() -> None:
    assert dice_from_counts(0, 0) == 1.0
    assert dice_from_counts(0, 4) == 0.0
    assert dice_from_counts(6, 8) == 0.75
