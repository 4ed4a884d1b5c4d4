"""What a pre-training run says in the console."""

from __future__ import annotations

import logging
from typing import Any

from ignite.engine import Engine
from torch.optim import Optimizer

from lora_ext.training.progress import TrainingLog

logger = logging.getLogger(__name__)


class PretrainingLog(TrainingLog):
    """A progress bar with the loss, a line per epoch, and the held-out loss after validation.

    A loss that is not finite ends the run with an error, since nothing useful can follow.

    Args:
        validator: the evaluator that the trainer runs.
        optimizer: to show the learning rate.
    """

    def __init__(self, validator: Engine, optimizer: Optimizer) -> None:
        super().__init__(validator, [], optimizer, key_metric="val_explained")

    def _end_validation(self, validator: Engine, trainer: Engine) -> None:
        state: Any = validator.state  # MONAI adds the best metric to it
        logger.info(
            "epoch %d/%d: held-out masked-patch loss %.4f, %.4f for the patches' means alone; "
            "%.1f %% of their detail predicted (best %.1f %% in epoch %d)",
            trainer.state.epoch,
            trainer.state.max_epochs,
            state.metrics["val_loss"],
            state.metrics["val_mean_only_loss"],
            100 * state.metrics[self.key_metric],
            100 * state.best_metric,
            state.best_metric_epoch,
        )
