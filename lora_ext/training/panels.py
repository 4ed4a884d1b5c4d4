"""Image panels for TensorBoard: image, ground truth and prediction in three planes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import TensorBoardHandler

from lora_ext.figures.overlay import overlay_figure
from lora_ext.training.tracking import log_figure


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
        output: Any = engine.state.output
        item = output[0]
        figure = overlay_figure(
            item["image"].cpu(),
            item["label"].cpu(),
            item["pred"].cpu(),
            self.regions,
            title=f"{item.get('case', 'case')}, epoch {engine.state.epoch}",
            channel_names=self.modalities,
        )
        self._writer.add_figure("validation", figure, engine.state.epoch)
        self._writer.flush()
        log_figure(engine, figure, f"validation/epoch_{engine.state.epoch:04d}.png")
