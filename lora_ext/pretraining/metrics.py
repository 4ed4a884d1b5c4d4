"""How well hidden patches of held-out volumes are predicted."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.metrics import Average, Metric

from lora_ext.pretraining.loss import MaskedPatchLoss, mean_only_loss


def held_out_metrics() -> dict[str, Metric]:
    """Return the metrics of a MONAI evaluator by name, averages over its iterations.

    Returns:
        ``val_loss``, the masked-patch loss; ``val_mean_only_loss``, what predicting each patch's
        mean would cost; and ``val_explained`` = 1 - loss / mean-only loss, the share of the detail
        inside hidden patches that is predicted: 0 for the means alone, 1 for all detail.
    """
    loss = Average(output_transform=_loss)
    mean_only = Average(output_transform=_mean_only)
    return {
        "val_explained": 1.0 - loss / mean_only,
        "val_loss": loss,
        "val_mean_only_loss": mean_only,
    }


def _loss(output: dict[str, Any]) -> float:
    return float(MaskedPatchLoss()(output["pred"], output["image"]))


def _mean_only(output: dict[str, Any]) -> float:
    return float(mean_only_loss(output["image"], output["pred"][1]))


class FixedMasks:
    """Hide the same patches of a held-out volume at every validation.

    Masks are drawn from torch's CPU generator. It is seeded by the volume's name before each batch
    and restored when the validation ends. So losses are comparable between epochs, whatever the
    other volumes and the number of processes, and training is not disturbed.

    Args:
        seed: a number that, with the volume's name, decides which patches are hidden.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.before: torch.Tensor | None = None

    def attach(self, engine: Engine) -> None:
        """Register on a MONAI evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_STARTED, self._fix)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end)

    def _begin(self) -> None:
        self.before = torch.get_rng_state()

    def _fix(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        known = isinstance(batch, Mapping) and "case" in batch
        name = batch["case"] if known else engine.state.iteration
        torch.manual_seed(zlib.crc32(f"{self.seed} {name}".encode()))

    def _end(self) -> None:
        if self.before is not None:
            torch.set_rng_state(self.before)
