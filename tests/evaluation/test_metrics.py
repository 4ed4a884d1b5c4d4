"""Case metrics and their summary against hand computation and MONAI's DiceMetric."""

from __future__ import annotations

import math

import pytest
import torch
from monai.metrics import DiceMetric

from lora_ext.evaluation import CaseMetrics, RegionMetrics, case_metrics, summary

REGIONS = {"TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}


def masks(*voxels: int) -> torch.Tensor:
    """One mask per number, with that many of the 27 voxels set from the start."""
    flat = torch.zeros(len(voxels), 27)
    for row, count in zip(flat, voxels, strict=True):
        row[:count] = 1
    return flat.reshape(-1, 3, 3, 3)


def region(both: int, predicted: int, true: int, hd95: float = 1.0) -> RegionMetrics:
    return RegionMetrics(both, predicted, true, voxel_ml=0.001, hd95_mm=hd95)


def test_dice_counts_and_volumes_are_those_worked_out_by_hand() -> None:
    case = case_metrics(masks(4, 10, 1), masks(8, 10, 3), (2.0, 2.5, 4.0), REGIONS, case="a")
    tumour_core = case.regions["TC"]
    assert case.case == "a"
    assert list(case.regions) == ["TC", "WT", "ET"]
    assert [entry.dice for entry in case.regions.values()] == [8 / 12, 1.0, 2 / 4]
    assert tumour_core.intersection_voxels == 4
    # A voxel is 20 cubic mm, which is 0.02 ml.
    assert tumour_core.predicted_ml == pytest.approx(0.08)
    assert tumour_core.truth_ml == pytest.approx(0.16)
    assert case.mean_dice == pytest.approx((8 / 12 + 1.0 + 2 / 4) / 3)
    assert case.pooled_dice == pytest.approx(2 * (4 + 10 + 1) / (12 + 20 + 4))
    assert case.regions["WT"].hd95_mm == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_dice_agrees_with_monai_also_where_regions_are_empty(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    prediction = (torch.rand(6, 5, 6, 7, generator=generator) < 0.4).float()
    truth = (torch.rand(6, 5, 6, 7, generator=generator) < 0.5).float()
    prediction[1], truth[1] = 0, 0
    prediction[2] = 0
    truth[3] = 0
    metric = DiceMetric(include_background=True, ignore_empty=False, reduction="none")
    expected = metric([prediction], [truth])[0]
    case = case_metrics(prediction, truth, (1.0, 1.0, 1.0), "abcdef")
    measured = torch.tensor([entry.dice for entry in case.regions.values()])
    torch.testing.assert_close(measured, expected)
    assert measured[1:4].tolist() == [1.0, 0.0, 0.0]


def test_an_empty_case_predicted_empty_is_perfect() -> None:
    case = case_metrics(masks(0, 0), masks(0, 0), (1.0, 1.0, 1.0), ["PZ", "TZ"])
    assert case.mean_dice == case.pooled_dice == 1.0
    assert [entry.hd95_mm for entry in case.regions.values()] == [0.0, 0.0]


def test_the_summary_is_the_one_worked_out_by_hand() -> None:
    first = CaseMetrics("a", (1, 1, 1), {"TC": region(5, 10, 10, 2.0), "WT": region(8, 8, 12, 3.0)})
    second = CaseMetrics("b", (1, 1, 1), {"TC": region(0, 4, 0, math.nan), "WT": region(9, 9, 9)})
    total = summary([first, second])
    assert total["cases"] == 2
    assert total["regions"]["TC"]["dice"] == pytest.approx((0.5 + 0.0) / 2)
    assert total["regions"]["WT"]["dice"] == pytest.approx((0.8 + 1.0) / 2)
    assert total["regions"]["TC"]["dice_std"] == pytest.approx(0.5 / math.sqrt(2))
    assert total["regions"]["TC"]["hd95_mm"] == 2.0
    assert total["regions"]["TC"]["hd95_undefined"] == 1
    assert math.isnan(total["regions"]["TC"]["hd95_mm_std"])
    assert total["regions"]["WT"]["hd95_mm"] == 2.0
    assert total["regions"]["WT"]["hd95_undefined"] == 0
    assert total["mean_dice"] == pytest.approx((0.25 + 0.9) / 2)
    assert total["mean_dice_std"] == pytest.approx(abs(0.65 - 0.5) / math.sqrt(2))
    assert total["pooled_dice"] == pytest.approx(2 * (5 + 8 + 0 + 9) / (20 + 20 + 4 + 18))


def test_pooled_dice_weighs_voxels_where_mean_dice_weighs_cases() -> None:
    large = CaseMetrics("large", (1, 1, 1), {"WT": region(1000, 1000, 1000)})
    small = CaseMetrics("small", (1, 1, 1), {"WT": region(0, 1, 1)})
    total = summary([large, small])
    assert total["mean_dice"] == 0.5
    assert total["pooled_dice"] == pytest.approx(2000 / 2002)


def test_one_case_has_no_standard_deviation() -> None:
    total = summary([CaseMetrics("a", (1, 1, 1), {"WT": region(1, 1, 1)})])
    assert math.isnan(total["mean_dice_std"])
    assert math.isnan(total["regions"]["WT"]["dice_std"])


def test_no_case_and_other_regions_are_refused() -> None:
    with pytest.raises(ValueError, match="no case was measured"):
        summary([])
    one = CaseMetrics("a", (1, 1, 1), {"WT": region(1, 1, 1)})
    other = CaseMetrics("b", (1, 1, 1), {"TC": region(1, 1, 1)})
    with pytest.raises(ValueError, match=r"b: regions \['TC'\]; expected \['WT'\]"):
        summary([one, other])


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, math.nan, 1.0)])
def test_an_impossible_spacing_is_refused_by_case(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="case7: spacing is"):
        case_metrics(masks(1), masks(1), spacing, ["WT"], case="case7")


def test_another_number_of_masks_than_regions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"R = 3 \(TC, WT, ET\)"):
        case_metrics(masks(1, 1), masks(1, 1), (1, 1, 1), REGIONS)
