"""Metrics against brute force, hand computation and MONAI; the key metric inside an evaluator."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import DiceMetric, compute_hausdorff_distance
from monai.transforms import AsDiscreted
from scipy.spatial.distance import cdist

from lora_ext.evaluation import CaseMetrics, PooledDice, RegionMetrics, case_metrics, summary
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
    assert hd95_mm(a[None], b[None], np.diag(SPACING)) == [
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
    assert hd95_mm(plate[None], shifted[None], np.diag(SPACING)) == [
        pytest.approx(expected, rel=1e-5)
    ]


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("offset", [(0, 0, 0), (5, 3, 2), (11, 12, 13)])
def test_hd95_is_monais_on_the_whole_volume_even_at_its_border(
    offset: tuple[int, ...],
) -> None:
    prediction, truth = torch.zeros(2, 2, 20, 20, 20, dtype=torch.bool)
    box = (slice(None), *(slice(o, o + n) for o, n in zip(offset, (9, 8, 7), strict=True)))
    prediction[box] = torch.stack([blobs(1), blobs(2, share=0.1)])
    truth[box] = torch.stack([blobs(3), blobs(4, share=0.7)])
    whole = compute_hausdorff_distance(
        prediction[None], truth[None], include_background=True, percentile=95, spacing=SPACING
    )
    assert hd95_mm(prediction, truth, np.diag(SPACING)) == pytest.approx(whole[0].tolist())


def test_hd95_is_zero_when_both_are_empty_and_undefined_when_one_is() -> None:
    empty, full = torch.zeros(4, 4, 4, dtype=torch.bool), torch.ones(4, 4, 4, dtype=torch.bool)
    prediction = torch.stack([empty, full, empty, full])
    truth = torch.stack([empty, empty, full, full])
    both, predicted_only, true_only, same = hd95_mm(prediction, truth, np.diag(SPACING))
    assert (both, same) == (0.0, 0.0)
    assert math.isnan(predicted_only)
    assert math.isnan(true_only)
    assert hd95_mm(empty[None], empty[None], np.diag(SPACING)) == [0.0]


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
    with pytest.raises(ValueError, match=r"prediction: .*got values from 0 to 0\.25"):
        binary_mask(torch.tensor([0.0, 0.25]), "prediction")


def test_nan_is_refused_in_a_mask() -> None:
    with pytest.raises(ValueError, match=r"ground truth: .*got values"):
        binary_mask(torch.tensor([0.0, math.nan]), "ground truth")


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.float16, torch.bool])
def test_masks_of_any_type_become_plain_booleans(kind: torch.dtype) -> None:
    mask = binary_mask(MetaTensor(torch.tensor([1, 0, 1]).to(kind)), "truth")
    assert type(mask) is torch.Tensor
    assert mask.tolist() == [True, False, True]


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(1, 2, 2, 2\) and \(1, 2, 2, 3\)"):
        voxel_counts(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 3))


def test_dice_of_nothing_and_nothing_is_one() -> None:
    assert dice_from_counts(0, 0) == 1.0
    assert dice_from_counts(0, 4) == 0.0
    assert dice_from_counts(6, 8) == 0.75


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
    with pytest.raises(ValueError, match=r"b: expected the regions \['WT'\], got \['TC'\]"):
        summary([one, other])


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, math.nan, 1.0)])
def test_an_impossible_spacing_is_refused_by_case(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="case7: expected a spacing"):
        case_metrics(masks(1), masks(1), spacing, ["WT"], case="case7")


def test_another_number_of_masks_than_regions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"R = 3 \(TC, WT, ET\)"):
        case_metrics(masks(1, 1), masks(1, 1), (1, 1, 1), REGIONS)


def mask(count: int, regions: int = 1) -> torch.Tensor:
    flat = torch.zeros(regions, 64)
    flat[:, :count] = 1
    return flat.reshape(regions, 4, 4, 4)


def test_cases_and_regions_are_pooled_before_the_division() -> None:
    metric = PooledDice()
    metric(mask(10)[None], mask(20)[None])
    metric([mask(4), mask(0)], [mask(1), mask(3)])
    assert metric.get_buffer().tolist() == [[20, 30], [2, 5], [0, 3]]
    assert metric.aggregate() == pytest.approx(22 / 38)


def test_all_regions_of_a_case_make_one_row() -> None:
    metric = PooledDice()
    metric(torch.cat([mask(2), mask(8)])[None], torch.cat([mask(4), mask(4)])[None])
    assert metric.get_buffer().tolist() == [[2 * (2 + 4), 6 + 12]]


def test_empty_and_predicted_empty_is_one_and_anything_else_is_zero() -> None:
    metric = PooledDice()
    metric([mask(0)], [mask(0)])
    assert metric.aggregate() == 1.0
    metric([mask(3)], [mask(0)])
    assert metric.aggregate() == 0.0


def test_reset_forgets_and_an_empty_aggregate_is_refused() -> None:
    metric = PooledDice()
    metric([mask(1)], [mask(1)])
    metric.reset()
    with pytest.raises(ValueError, match="counted no case"):
        metric.aggregate()


def test_probabilities_and_a_missing_truth_are_refused() -> None:
    with pytest.raises(ValueError, match="only 0 and 1"):
        PooledDice()([mask(1) * 0.5], [mask(1)])
    with pytest.raises(ValueError, match="got no ground truth"):
        PooledDice()([mask(1)])


def test_it_is_the_key_metric_of_a_monai_evaluator() -> None:
    counts = [(10, 20), (5, 5), (0, 7)]
    # The "network" is the identity: the image already holds the probabilities.
    cases = [{"image": mask(p, 2) * 0.6 + 0.2, "label": mask(t, 2)} for p, t in counts]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(cases), batch_size=2),
        network=torch.nn.Identity(),
        postprocessing=AsDiscreted(keys="pred", threshold=0.5),
        key_val_metric={
            "pooled_dice": IgniteMetricHandler(
                PooledDice(), output_transform=from_engine(["pred", "label"])
            )
        },
    )
    expected = 2 * (10 + 5 + 0) / (30 + 10 + 7)
    for _ in range(2):  # the second run starts from nothing
        evaluator.run()
        assert evaluator.state.metrics["pooled_dice"] == pytest.approx(expected)
        assert evaluator.state.metric_details["pooled_dice"].shape == (3, 2)
    assert evaluator.state.best_metric == pytest.approx(expected)


def test_it_works_in_a_plain_ignite_engine() -> None:
    def step(engine: Engine, batch: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        return [{"pred": mask(6), "label": mask(2)} for _ in batch]

    engine = Engine(step)
    handler = IgniteMetricHandler(PooledDice(), output_transform=from_engine(["pred", "label"]))
    handler.attach(engine, "pooled_dice")
    assert engine.run([torch.zeros(2)]).metrics["pooled_dice"] == 0.5


@pytest.mark.parametrize("shear", [0.0, 0.3, -0.8])
def test_sheared_axes_count_by_their_volume_and_distances(shear: float) -> None:
    """The box's volume stays; distances are those between the voxels' places in mm."""
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = torch.tensor([[2.0, 3 * shear, 0], [0, 3, 0], [0, 0, 4]])
    random = torch.rand((2, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0)) > 0.9
    prediction, truth = random[0], MetaTensor(random[1].float(), affine=affine)
    case = case_metrics(prediction, truth, truth.pixdim.tolist(), ["WT"])
    assert case.regions["WT"].voxel_ml == pytest.approx(0.024)
    places = [np.argwhere(m[0].numpy() != 0) @ affine[:3, :3].numpy().T for m in (random[0], truth)]
    between = cdist(*places)
    expected = max(np.percentile(between.min(axis), 95) for axis in (0, 1))
    assert case.regions["WT"].hd95_mm == pytest.approx(expected)
