"""The last state of a training run, so that a killed run goes on where it was."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from lora_ext.files import whole_file

logger = logging.getLogger(__name__)


class LastCheckpoint:
    """Write ``last.pt`` after every few epochs and, when asked to, start from it.

    Args:
        ckpt_dir: folder of ``last.pt``.
        objects: what to save and restore, by name: network, optimizer, scheduler.
        validator: the evaluator, whose best metric so far is kept too.
        resume: start from ``last.pt`` if there is one.
        interval: epochs between two writes; the last epoch is always written.
        write: whether this process writes; only one of several does.
    """

    def __init__(
        self,
        ckpt_dir: str | os.PathLike[str],
        objects: Mapping[str, Any],
        validator: Engine,
        resume: bool = False,
        interval: int = 1,
        write: bool = True,
    ) -> None:
        self.path = Path(ckpt_dir) / "last.pt"
        self.objects = dict(objects)
        self.validator = validator
        self.resume = resume
        self.interval = interval
        self.write = write

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI trainer. Attach it last, so that it saves what the others did."""
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        if self.write:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Restore everything from ``last.pt``, or say that there is none.

        Raises:
            ValueError: if the run there was for another number of epochs, since its learning rate
                schedule then does not fit.
        """
        if not self.path.is_file():
            logger.info("nothing to resume in %s: starting anew", self.path.parent)
            return
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["max_epochs"] != engine.state.max_epochs:
            raise ValueError(
                f"{self.path}: was written by a run of {state['max_epochs']} epochs; resume with "
                f"--epochs {state['max_epochs']}, not {engine.state.max_epochs}"
            )
        for name, thing in self.objects.items():
            thing.load_state_dict(state[name])
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        best: Any = self.validator.state  # MONAI adds the best metric to it
        best.best_metric, best.best_metric_epoch = state["best_metric"], state["best_metric_epoch"]
        torch.set_rng_state(state["torch_rng"])
        logger.info("resumed from %s after epoch %d", self.path, state["epoch"])

    def save(self, engine: Engine) -> None:
        """Write ``last.pt``, whole or not at all."""
        epoch, max_epochs = engine.state.epoch, engine.state.max_epochs
        best: Any = self.validator.state
        if epoch % self.interval and epoch != max_epochs:
            return
        state = {name: thing.state_dict() for name, thing in self.objects.items()}
        state |= {
            "epoch": epoch,
            "iteration": engine.state.iteration,
            "max_epochs": max_epochs,
            "best_metric": best.best_metric,
            "best_metric_epoch": best.best_metric_epoch,
            "torch_rng": torch.get_rng_state(),
        }
        with whole_file(self.path) as draft:
            torch.save(state, draft)
