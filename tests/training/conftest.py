"""A trainer and an evaluator of MONAI's on two small random cases."""

from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, ValidationHandler, from_engine
from monai.metrics import DiceMetric
from monai.transforms import AsDiscreted
from torch.nn import functional

from lora_ext.evaluation import PooledDice

REGIONS = ["TC", "WT", "ET"]


def cases(count=2):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 2, 32, 32, 16, generator=generator)
    labels = functional.avg_pool3d(images, 5, 1, 2)[:, [0, 0, 1]] > 0
    return [
        {"image": i, "label": t.float(), "case": f"case{n}"}
        for n, (i, t) in enumerate(zip(images, labels, strict=True))
    ]


def evaluator(network, handlers=()):
    transform = from_engine(["pred", "label"])
    dice = DiceMetric(reduction="mean_batch", ignore_empty=False, return_with_label=REGIONS)
    return SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(Dataset(cases()), batch_size=1),
        network=network,
        postprocessing=AsDiscreted(keys="pred", threshold=0.0),
        key_val_metric={
            "val_pooled_dice": IgniteMetricHandler(
                PooledDice(), output_transform=transform, save_details=False
            )
        },
        additional_metrics={"val_dice": IgniteMetricHandler(dice, output_transform=transform)},
        val_handlers=list(handlers),
    )


@pytest.fixture
def build():
    """A function that builds both engines; handlers come before and after the validation."""

    def build(network, make_handlers, epochs=2, learning_rate=1e-3, val_handlers=()):
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(network.trainable_parameters(), lr=learning_rate)
        validator = evaluator(network, val_handlers)
        first, last = make_handlers(validator, optimizer)
        handlers = [*first, ValidationHandler(1, validator), *last]
        trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=DataLoader(Dataset(cases()), batch_size=1),
            network=network,
            optimizer=optimizer,
            loss_function=functional.binary_cross_entropy_with_logits,
            train_handlers=handlers,
        )
        return trainer, validator

    return build
