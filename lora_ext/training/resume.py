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
from lora_ext.processes import gather

logger = logging.getLogger(__name__)


class LastCheckpoint:
    """Write ``last.ckpt`` after every few epochs and, when asked to, start from it.

    Args:
        ckpt_dir: folder of ``last.ckpt``.
        objects: what to save and restore, by name: network, optimizer, scheduler.
        validator: the evaluator, whose best metric so far is kept too.
        resume: start from ``last.ckpt`` if there is one.
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
        # not *.pt: MONAI Label takes the shortest-named models/*.pt for the model
        self.path = Path(ckpt_dir) / "last.ckpt"
        self.objects = dict(objects)
        self.validator = validator
        self.resume = resume
        self.interval = interval
        self.write = write

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI trainer. Attach it last, so that it saves what the others did."""
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Restore everything from ``last.ckpt``, or say that there is none.

        Raises:
            ValueError: if the run there was for another number of epochs or of steps per epoch,
                since its learning rate schedule then does not fit, or if several processes find
                different files.
        """
        state = self._read()
        if state is None:
            logger.info("nothing to resume in %s: starting anew", self.path.parent)
            return
        self._check_schedule(state, engine)
        for name, thing in self.objects.items():
            thing.load_state_dict(state[name])
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        best: Any = self.validator.state  # MONAI adds the best metric to it
        best.best_metric, best.best_metric_epoch = state["best_metric"], state["best_metric_epoch"]
        if self.write:  # any other process would draw this one's crops again
            torch.set_rng_state(state["torch_rng"])
        logger.info("resumed from %s after epoch %d", self.path, state["epoch"])

    def _read(self) -> dict[str, Any] | None:
        found = self.path.is_file()
        state = torch.load(self.path, map_location="cpu", weights_only=True) if found else None
        epochs = gather(state["epoch"] if state else 0)
        if len(set(epochs)) > 1:
            raise ValueError(
                f"{self.path}: found the epochs {epochs} in the run's processes (0 for no file); "
                "allowed is one: give --ckpt_dir a folder that all machines share"
            )
        return state

    def _check_schedule(self, state: dict[str, Any], engine: Engine) -> None:
        if state["max_epochs"] != engine.state.max_epochs:
            raise ValueError(
                f"{self.path}: was written by a run of {state['max_epochs']} epochs; resume with "
                f"--epochs {state['max_epochs']}, not {engine.state.max_epochs}"
            )
        steps = state["iteration"] // state["epoch"]
        if steps != engine.state.epoch_length:
            raise ValueError(
                f"{self.path}: was written by a run of {steps} steps per epoch, this one has "
                f"{engine.state.epoch_length}; resume with the same cases, --batch_size and number "
                "of processes"
            )

    def save(self, engine: Engine) -> None:
        """Write ``last.ckpt``, whole or not at all."""
        epoch, max_epochs = engine.state.epoch, engine.state.max_epochs
        best: Any = self.validator.state
        if epoch % self.interval and epoch != max_epochs:
            return
        for thing in self.objects.values():  # each process holds its shard of a sharded optimizer
            if hasattr(thing, "consolidate_state_dict"):
                thing.consolidate_state_dict()
        if not self.write:
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
