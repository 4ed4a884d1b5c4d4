"""What MONAI's engines need to pre-train and to evaluate an auto-encoder.

The function that prepares a batch, and the handlers that keep the best encoder, write to the
console, draw reconstructions and report the metrics of held-out volumes.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import TensorBoardHandler
from torch import Tensor
from torch.optim import Optimizer

from lora_ext.evaluation.page import figure_path
from lora_ext.figures.overlay import save_figure
from lora_ext.figures.reconstruction import reconstruction_figure
from lora_ext.files import whole_file
from lora_ext.pretraining.autoencoder import VolumeAutoEncoder
from lora_ext.pretraining.loss import MaskedPatchLoss, mean_only_loss, reconstruct
from lora_ext.training.checkpoints import BestModel
from lora_ext.training.log import TrainingLog
from lora_ext.training.tracking import log_figure
from lora_ext.weights import save_encoder, save_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


def volume_as_target(
    batch: dict[str, Any],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Prepare a batch for MONAI's engines: a volume is its own target.

    The volumes move to the device once, as plain tensors.

    Args:
        batch: its ``image`` has shape (B, 1, H, W, D).
        device: the device to move to.
        non_blocking: see `torch.Tensor.to`.
        **kwargs: further arguments of `torch.Tensor.to`.

    Returns:
        Input and target, the same tensor.
    """
    volume = torch.as_tensor(batch["image"]).as_subclass(torch.Tensor)
    volume = volume.to(device=device, non_blocking=non_blocking, **kwargs)
    return volume, volume


class BestEncoder(BestModel):
    """Save auto-encoder and encoder whenever validation's key metric is the best so far.

    Args:
        network: the auto-encoder.
        ckpt_dir: folder for ``model.pt`` (the whole auto-encoder), ``network.json`` and
            ``encoder.safetensors``.
    """

    def __init__(self, network: VolumeAutoEncoder, ckpt_dir: str | os.PathLike[str]) -> None:
        super().__init__(network, ckpt_dir)  # type: ignore[arg-type]
        self.autoencoder = network

    def save(self, epoch: int) -> None:
        """Write the auto-encoder, and its encoder with the epoch in its metadata.

        Args:
            epoch: the training epoch.
        """
        save_model(self.autoencoder, self.ckpt_dir / "model.pt")
        config = self.autoencoder.config
        save_encoder(
            self.autoencoder.state_dict(),
            self.ckpt_dir / "encoder.safetensors",
            img_size=config["img_size"],
            num_heads=config["num_heads"],
            masking_ratio=config["masking_ratio"],
            epoch=epoch,
        )


class PretrainingLog(TrainingLog):
    """A progress bar with the loss, a line per epoch, and the held-out loss after validation.

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


class ReconstructionPanels(TensorBoardHandler):
    """Draw the first `limit` volumes of every validation: PNG files, TensorBoard and MLflow.

    A picture's title gives the volume's masked-patch loss and that of the patches' means.

    Args:
        output_dir: pictures go to its ``figures`` folder, named after the volume; a later
            validation replaces them. TensorBoard, and MLflow if it is on, get the first one.
        limit: number of volumes to draw at each validation.
    """

    def __init__(self, output_dir: str | os.PathLike[str], limit: int = 4) -> None:
        super().__init__(log_dir=os.fspath(output_dir))
        self.output_dir = Path(output_dir)
        self.limit = limit
        self.drawn = 0

    def attach(self, engine: Engine) -> None:
        """Register on a MONAI evaluator."""
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
            case = batch["case"][index] if "case" in batch else f"volume {self.drawn}"
            figure = _reconstruction(volumes[one], patches[one], mask[one], case)
            save_figure(figure, self.output_dir / figure_path(case))
            if self.drawn == 0:
                self._writer.add_figure("reconstruction", figure, engine.state.epoch)
                self._writer.flush()
                log_figure(engine, figure, f"reconstruction/epoch_{engine.state.epoch:04d}.png")
            self.drawn += 1


def _reconstruction(volume: Tensor, patches: Tensor, mask: Tensor, case: str) -> Figure:
    """Draw one volume (1, 1, H, W, D) and its prediction, with the losses in the title."""
    parts = {name: part[0].cpu() for name, part in reconstruct(volume, patches, mask).items()}
    loss = float(MaskedPatchLoss()((patches, mask), volume))
    title = f"{case}: loss {loss:.3f}, patch means {mean_only_loss(volume, mask):.3f}"
    return reconstruction_figure(volume[0].cpu(), parts, title)


class VolumeReport:
    """Write the held-out metrics when an evaluation ends.

    Args:
        output_dir: folder of ``metrics.json``.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.path = Path(output_dir) / "metrics.json"

    def attach(self, engine: Engine) -> None:
        """Register on a MONAI evaluator."""
        engine.add_event_handler(Events.COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Write and log the metrics.

        Args:
            engine: the evaluator; its `state.metrics` are read.
        """
        metrics: dict[str, Any] = {k: float(v) for k, v in engine.state.metrics.items()}
        with whole_file(self.path) as draft:
            draft.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        logger.info(
            "held-out masked-patch loss %.4f, %.4f for the patches' means alone; written to %s",
            metrics["val_loss"],
            metrics["val_mean_only_loss"],
            self.path.parent,
        )
