"""Keep the best model: ``model.pt``, ``network.json`` and, where it makes sense, the adapter."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ignite.engine import Engine, Events

from lora_ext.regimes import get_regime
from lora_ext.weights import save_adapter, save_model

if TYPE_CHECKING:
    from lora_ext.unetr import ChannelLoRAUNETR

logger = logging.getLogger(__name__)


class BestModel:
    """Save the network whenever validation's key metric is the best so far.

    It asks MONAI's evaluator for the best epoch, and not a memory of its own, so that a resumed
    run does not overwrite a better model of before the interruption. A run that goes on from a
    whole model validates it first, as epoch 0; a ``model.pt`` that is there then stays until an
    epoch is better.

    Args:
        network: the network to save.
        ckpt_dir: folder for ``model.pt`` (a complete, flat state dict), ``network.json`` and, in
            regimes that leave the encoder as it was, ``adapter.safetensors``.
    """

    def __init__(self, network: ChannelLoRAUNETR, ckpt_dir: str | os.PathLike[str]) -> None:
        self.network = network
        self.ckpt_dir = Path(ckpt_dir)

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save_if_best)

    def save_if_best(self, engine: Engine) -> None:
        """Save if the validation that just ended is the best so far."""
        state: Any = engine.state  # MONAI adds the best metric's epoch to it
        before_training = state.epoch == 0 and (self.ckpt_dir / "model.pt").is_file()
        if state.best_metric_epoch != state.epoch or before_training:
            return
        self.save(state.epoch)
        logger.debug("best model saved to %s", self.ckpt_dir)

    def save(self, epoch: int) -> None:
        """Write the network's files.

        Args:
            epoch: the training epoch that the network is of.
        """
        save_model(self.network, self.ckpt_dir / "model.pt")
        if "encoder" not in get_regime(self.network.regime).trained:
            save_adapter(self.network, self.ckpt_dir / "adapter.safetensors")
