"""What a training keeps: the best model, and its last state to resume an interrupted run from."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn

from lora_ext.files import whole_file
from lora_ext.networks.regimes import get_regime
from lora_ext.training.divergence import FiniteTraining
from lora_ext.training.restoring import check_records, check_state, read_state, restore
from lora_ext.weights import save_adapter, save_model

if TYPE_CHECKING:
    from lora_ext.networks.channel_network import ChannelNetwork


logger = logging.getLogger(__name__)


class BestModel:
    """Save the network whenever validation's key metric is the best so far.

    It asks MONAI's evaluator for the best epoch, and not a memory of its own, so that a resumed
    run does not overwrite a better model of before the interruption. A run that continues from a
    whole model validates it first, as epoch 0; a ``model.pt`` that is there then stays until an
    epoch is better.

    Args:
        network: the network to save.
        ckpt_dir: folder for ``model.pt`` (a complete, flat state dict), ``network.json`` and, in
            regimes that leave the encoder as it was, ``adapter.safetensors``.
    """

    def __init__(self, network: ChannelNetwork, ckpt_dir: str | os.PathLike[str]) -> None:
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


class LastCheckpoint:
    """Write ``last.ckpt`` after every few epochs and, when asked to, start from it.

    A training whose loss or weights are no longer finite ends before it is written.

    Args:
        ckpt_dir: folder of ``last.ckpt``.
        objects: what to save and restore, by name: network, optimizer, scheduler.
        validator: the evaluator, whose best metric so far is kept too.
        resume: start from ``last.ckpt`` if there is one.
        interval: epochs between two writes; the last epoch is always written. Rank 0 writes.
    """

    def __init__(
        self,
        ckpt_dir: str | os.PathLike[str],
        objects: Mapping[str, Any],
        validator: Engine,
        resume: bool = False,
        interval: int = 1,
    ) -> None:
        # not *.pt: MONAI Label takes the shortest-named models/*.pt for the model
        self.path = Path(ckpt_dir) / "last.ckpt"
        self.objects = dict(objects)
        self.validator = validator
        self.resume = resume
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI trainer. Attach it last, so that it saves what the others did."""
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        for thing in self.objects.values():
            if isinstance(thing, nn.Module):
                FiniteTraining(thing, self.path.parent).attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Restore everything from ``last.ckpt``, or say that there is none.

        Raises:
            ValueError: if the file cannot be read or is of another network or optimizer, if the run
                there was for another number of epochs or of steps per epoch, since its learning
                rate schedule then does not fit, or if several processes find different files. The
                network is then as it was.
        """
        state = self._read()
        if state is None:
            logger.info("nothing to resume in %s: starting anew", self.path.parent)
            return
        check_records(state, self.objects, self.path)
        check_state(state, self.objects, self.path)
        self._check_schedule(state, engine)
        restore(state, self.objects, self.path)
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        best: Any = self.validator.state  # MONAI adds the best metric to it
        best.best_metric, best.best_metric_epoch = state["best_metric"], state["best_metric_epoch"]
        logger.info("resumed from %s after epoch %d", self.path, state["epoch"])

    def _read(self) -> dict[str, Any] | None:
        found = self.path.is_file()
        state = read_state(self.path) if found else None
        epochs: Any = idist.all_gather(state["epoch"] if state else 0)
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
        if idist.get_rank() > 0:
            return
        state = {name: thing.state_dict() for name, thing in self.objects.items()}
        networks = {name: thing for name, thing in self.objects.items() if hasattr(thing, "config")}
        state |= {
            "records": {name: dict(network.config) for name, network in networks.items()},
            "epoch": epoch,
            "iteration": engine.state.iteration,
            "max_epochs": max_epochs,
            "best_metric": best.best_metric,
            "best_metric_epoch": best.best_metric_epoch,
        }
        with whole_file(self.path) as draft:
            torch.save(state, draft)
