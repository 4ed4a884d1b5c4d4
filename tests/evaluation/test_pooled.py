"""The key metric: pooling by hand, and inside MONAI's evaluator as a bundle uses it."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from monai.transforms import AsDiscreted

from lora_ext.evaluation import PooledDice


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
    with pytest.raises(ValueError, match="no truth"):
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
