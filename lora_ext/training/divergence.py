"""A loss or a weight that is not finite ends a training, before anything is spoilt by it.

The loss is looked at before its gradient is taken, so the weights are still those that made it; the
weights are looked at after the last step of an epoch, so that no model or ``last.ckpt`` is written
with NaN in it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from lora_ext.files import whole_file

NAME = "diverged.ckpt"


class FiniteTraining:
    """End a training whose loss or weights are no longer finite, and keep what they came from.

    Args:
        network: the network that is trained.
        ckpt_dir: folder for ``diverged.ckpt``: the network's weights, the batch and its cases.
    """

    def __init__(self, network: nn.Module, ckpt_dir: str | os.PathLike[str]) -> None:
        self.network = network
        self.path = Path(ckpt_dir) / NAME

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI trainer."""
        engine.register_events(*IterationEvents)  # a plain engine of ignite's has none
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.check_loss)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.check_last_step)

    def check_loss(self, engine: Engine) -> None:
        """Look at the loss of a step, before its gradient.

        Raises:
            FloatingPointError: if it is not finite; the message says what most likely made it so.
        """
        output: Any = engine.state.output
        loss = float(output["loss"].detach())
        if not math.isfinite(loss):
            self._stop(engine, f"the loss is {loss}")

    def check_last_step(self, engine: Engine) -> None:
        """Look at the weights after the last step of an epoch.

        Raises:
            FloatingPointError: see `check_loss`.
        """
        state: Any = engine.state
        if state.iteration % state.epoch_length == 0 and not _finite(self.network):
            self._stop(engine, "a weight is no longer finite")

    def _stop(self, engine: Engine, found: str) -> None:
        state: Any = engine.state
        cases = _cases(state.batch)
        if idist.get_rank() == 0:
            with whole_file(self.path) as draft:
                torch.save({**self._kept(engine), "cases": cases}, draft)
        raise FloatingPointError(
            f"{found} in epoch {state.epoch}, step {state.iteration} "
            f"({', '.join(cases) or 'cases without names'}): {self._cause(engine)}; weights and "
            f"batch are in {self.path}, and last.ckpt and model.pt are as they were"
        )

    def _kept(self, engine: Engine) -> dict[str, Any]:
        state: Any = engine.state
        output: Any = state.output if isinstance(state.output, dict) else {}
        batch = {k: _plain(v) for k, v in output.items() if k in ("image", "label", "pred")}
        weights = {k: v.cpu() for k, v in self.network.state_dict().items()}
        return {**batch, "network": weights, "epoch": state.epoch, "iteration": state.iteration}

    def _cause(self, engine: Engine) -> str:
        """What most likely made the loss so, and what helps."""
        state: Any = engine.state
        output: Any = state.output if isinstance(state.output, dict) else {}
        for name in ("image", "label"):
            if name in output and not torch.isfinite(_plain(output[name])).all():
                return f"the {name} is not finite after preprocessing, so look at these cases"
        if state.iteration == 1 and not _finite(self.network):
            return "the weights are not finite at the start, so begin with another --pretrained"
        optimizer = getattr(engine, "optimizer", None)
        rate = f" (now {optimizer.param_groups[0]['lr']:.2g})" if optimizer else ""
        return f"the training diverged, so lower --learning_rate{rate}"


def _finite(network: nn.Module) -> bool:
    return all(bool(p.isfinite().all()) for p in network.state_dict().values())


def _plain(values: Any) -> Tensor:
    return torch.as_tensor(values).detach().as_subclass(Tensor).cpu()


def _cases(batch: Any) -> list[str]:
    """Names of a batch's cases, each once."""
    items = batch if isinstance(batch, Sequence) and not isinstance(batch, str) else [batch]
    found: list[str] = []
    for item in items:
        names = item.get("case", []) if isinstance(item, dict) else []
        found += [names] if isinstance(names, str) else names
    return list(dict.fromkeys(found))
