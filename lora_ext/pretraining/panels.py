"""Reconstructions of held-out volumes, as PNG and in TensorBoard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import TensorBoardHandler

from lora_ext.evaluation.figures import save_figure
from lora_ext.pretraining.figures import reconstruct, reconstruction_figure
from lora_ext.pretraining.loss import MaskedPatchLoss, mean_only_loss
from lora_ext.training.tracking import log_figure


class ReconstructionPanels(TensorBoardHandler):
    """After every validation iteration, draw the volumes until `limit` are drawn.

    A picture's title gives the volume's masked-patch loss and that of the patches' means.

    Args:
        output_dir: pictures go to its ``figures`` folder, named after the volume; a later
            validation replaces them. TensorBoard, and MLflow if it is on, get the first one.
        limit: number of volumes to draw at each validation.
    """

    def __init__(self, output_dir: str | os.PathLike[str], limit: int = 4) -> None:
        super().__init__(log_dir=os.fspath(output_dir))
        self.folder = Path(output_dir) / "figures"
        self.limit = limit
        self.drawn = 0

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._draw)

    def _begin(self) -> None:
        self.drawn = 0

    def _draw(self, engine: Engine) -> None:
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        volumes, (patches, mask) = output["image"], output["pred"]
        for index in range(min(len(volumes), self.limit - self.drawn)):
            one = slice(index, index + 1)
            volume, prediction = volumes[one], (patches[one], mask[one])
            parts = {k: v[0].cpu() for k, v in reconstruct(volume, *prediction).items()}
            case = batch["case"][index] if "case" in batch else f"volume {self.drawn}"
            loss = float(MaskedPatchLoss()(prediction, volume))
            title = f"{case}: loss {loss:.3f}, patch means {mean_only_loss(volume, mask[one]):.3f}"
            figure = reconstruction_figure(volume[0].cpu(), parts, title)
            save_figure(figure, self.folder / f"{case}.png")
            if self.drawn == 0:
                self._writer.add_figure("reconstruction", figure, engine.state.epoch)
                self._writer.flush()
                log_figure(engine, figure, f"reconstruction/epoch_{engine.state.epoch:04d}.png")
            self.drawn += 1
