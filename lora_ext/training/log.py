"""What a training shows: a bar per epoch and numbers in the console, pictures in TensorBoard."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.handlers import TensorBoardHandler
from torch.optim import Optimizer

from lora_ext.figures.overlay import overlay_figure
from lora_ext.training.tracking import log_figure

logger = logging.getLogger(__name__)


class TrainingLog:
    """A progress bar with the loss, a line per epoch, and Dice per region after validation.

    A run whose model finds nothing in any validation says so in the end.

    Args:
        validator: the evaluator that the trainer runs.
        regions: names of the regions, as the evaluator's metrics are named.
        optimizer: to show the learning rate.
        key_metric: name of the metric that decides which model is kept.
    """

    def __init__(
        self,
        validator: Engine,
        regions: Sequence[str],
        optimizer: Optimizer,
        key_metric: str = "val_pooled_dice",
    ) -> None:
        self.validator = validator
        self.regions = list(regions)
        self.optimizer = optimizer
        self.key_metric = key_metric
        self.losses: list[float] = []
        self.started = 0.0

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI trainer and to its validator."""
        # disable=None: tqdm draws its bar on a terminal and keeps quiet in a log file.
        ProgressBar(desc="training", disable=None).attach(
            engine, output_transform=lambda output: {"loss": _loss(output)}
        )
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        engine.add_event_handler(Events.COMPLETED, self._end_training)
        ProgressBar(desc="validation", disable=None).attach(self.validator)
        self.validator.add_event_handler(Events.COMPLETED, self._end_validation, engine)

    def _begin_epoch(self, engine: Engine) -> None:
        self.losses, self.started = [], time.perf_counter()

    def _keep_loss(self, engine: Engine) -> None:
        self.losses.append(_loss(engine.state.output))

    def _end_epoch(self, engine: Engine) -> None:
        logger.info(
            "epoch %d/%d: loss %.4f, learning rate %.2g, %.1f s",
            engine.state.epoch,
            engine.state.max_epochs,
            sum(self.losses) / max(len(self.losses), 1),
            self.optimizer.param_groups[0]["lr"],
            time.perf_counter() - self.started,
        )

    def _end_validation(self, validator: Engine, trainer: Engine) -> None:
        state: Any = validator.state  # MONAI adds the best metric to it
        metrics = state.metrics
        regions = [metrics[name] for name in self.regions]
        logger.info(
            "epoch %d/%d: validation pooled_dice %.4f (best %.4f in epoch %d), mean_dice %.4f, %s",
            state.epoch,  # 0 for a model that is validated before training
            trainer.state.max_epochs,
            metrics[self.key_metric],
            state.best_metric,
            state.best_metric_epoch,
            sum(regions) / len(regions),
            " ".join(
                f"{name} {dice:.4f}" for name, dice in zip(self.regions, regions, strict=True)
            ),
        )

    def _end_training(self) -> None:
        best = getattr(self.validator.state, "best_metric", None)  # also of before a resumption
        if self.regions and best == 0:
            logger.warning(
                "Dice was 0 for every region in all validations, so the model finds nothing: train "
                "for more epochs, lower --learning_rate, or look whether images and labels match "
                "(--regions, and --spacing times --roi_size against the size of the organ)"
            )


class OverlayPanels(TensorBoardHandler):
    """After each validation, one figure of the last case in TensorBoard, and MLflow if it is on.

    Args:
        log_dir: TensorBoard's folder.
        regions: names of the regions with their labels.
        modalities: names of the channels.
        interval: validations between two figures.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        regions: Mapping[str, Sequence[int]],
        modalities: Sequence[str],
        interval: int = 1,
    ) -> None:
        super().__init__(log_dir=os.fspath(log_dir))
        self.regions = regions
        self.modalities = list(modalities)
        self.interval = interval
        self.seen = 0

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.draw)

    def draw(self, engine: Engine) -> None:
        """Write the figure of the last validated case, stamped with the training epoch."""
        self.seen += 1
        if (self.seen - 1) % self.interval:
            return
        state: Any = engine.state  # decollated: the name is in the batch, the masks in the output
        item, given = state.output[0], state.batch[0]
        figure = overlay_figure(
            item["image"].cpu(),
            item["label"].cpu(),
            item["pred"].cpu(),
            self.regions,
            title=f"{given.get('case', 'case')}, epoch {engine.state.epoch}",
            channel_names=self.modalities,
        )
        self._writer.add_figure("validation", figure, engine.state.epoch)
        self._writer.flush()
        log_figure(engine, figure, f"validation/epoch_{engine.state.epoch:04d}.png")


def _loss(output: Any) -> float:
    """The loss out of a trainer's output, decollated or not."""
    item = output[0] if isinstance(output, Sequence) else output
    return float(torch.as_tensor(item["loss"]).detach())
