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
            self._stop(engine, f"the loss is {loss}", self._cause(engine))

    def check_last_step(self, engine: Engine) -> None:
        """Look at the weights after the last step of an epoch.

        Raises:
            FloatingPointError: if one is not finite.
        """
        state: Any = engine.state
        if state.iteration % state.epoch_length == 0 and not _finite(self.network):
            self._stop(engine, "a weight is no longer finite", _diverged(engine))

    def _stop(self, engine: Engine, found: str, cause: str) -> None:
        state: Any = engine.state
        cases = _cases(state.batch)
        if idist.get_rank() == 0:
            weights = {k: v.cpu() for k, v in self.network.state_dict().items()}
            counts = {"epoch": state.epoch, "iteration": state.iteration}
            with whole_file(self.path) as draft:
                torch.save({"network": weights, **_batch(engine), **counts, "cases": cases}, draft)
        raise FloatingPointError(
            f"{found} in epoch {state.epoch}, step {state.iteration} "
            f"({', '.join(cases) or 'cases without names'}): {cause}; weights and batch are in "
            f"{self.path}, and last.ckpt and model.pt are as they were"
        )

    def _cause(self, engine: Engine) -> str:
        """What most likely made the loss so, and what helps."""
        state: Any = engine.state
        batch = _batch(engine)
        for name, values in batch.items():
            if not values.isfinite().all():
                return f"the {name} is not finite after preprocessing, so look at these cases"
        if state.iteration > 1:
            return _diverged(engine)
        if not _finite(self.network):
            return "weights are not finite before the first step, so give another --pretrained"
        largest = max(float(p.detach().abs().max()) for p in self.network.parameters())
        sizes = [f"{name} {float(v.abs().max()):.3g}" for name, v in batch.items()]
        return (
            "no step was taken yet, so a number is too large, of weights up to "
            f"{largest:.3g}, {', '.join(sizes)}; look at these cases and at --pretrained"
        )


def _diverged(engine: Engine) -> str:
    optimizer = getattr(engine, "optimizer", None)
    rate = f" (now {optimizer.param_groups[0]['lr']:.2g})" if optimizer else ""
    return f"the training diverged, so lower --learning_rate{rate}"


def _batch(engine: Engine) -> dict[str, Tensor]:
    """Images and labels of the step, on the CPU; none once MONAI took the batch apart."""
    output: Any = engine.state.output
    given = output if isinstance(output, dict) else {}
    values = {k: torch.as_tensor(given[k]).detach() for k in ("image", "label") if k in given}
    return {k: v.as_subclass(Tensor).cpu() for k, v in values.items()}


def _finite(network: nn.Module) -> bool:
    return all(bool(p.isfinite().all()) for p in network.state_dict().values())


def _cases(batch: Any) -> list[str]:
    """Names of a batch's cases, each once."""
    items = batch if isinstance(batch, Sequence) and not isinstance(batch, str) else [batch]
    found: list[str] = []
    for item in items:
        names = item.get("case", []) if isinstance(item, dict) else []
        found += [names] if isinstance(names, str) else names
    return list(dict.fromkeys(found))
