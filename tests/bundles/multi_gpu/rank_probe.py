"""A handler that writes down what its own process saw; the processes' files are then compared."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.utils import convert_to_tensor
from torch import distributed


class RankProbe:
    """Save losses, rates, images, weights and metrics of this process as ``rank<N>.pt``.

    Args:
        out: folder of the file.
        network: the network, not wrapped.
        validator: the evaluator that the trainer runs.
        optimizer: to read the learning rate and the bytes of the states held here.
        fix_masks: of a masked auto-encoder: draw the masks of all processes' volumes alike in all,
            and keep the own ones, so that a run in one process draws the same.
        kill_after: the epoch at whose end the processes are killed.
    """

    def __init__(self, out, network, validator, optimizer, fix_masks=False, kill_after=None):
        self.path = Path(out) / f"rank{idist.get_rank()}.pt"
        self.network, self.validator, self.optimizer = network, validator, optimizer
        self.seen = {"loss": [], "rate": [], "case": [], "image": [], "metrics": [], "held": []}
        self.fix_masks, self.kill_after = fix_masks, kill_after

    def attach(self, engine):
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_STARTED, self.see_batch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.see_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.see_metrics)
        engine.add_event_handler(Events.COMPLETED, self.save)
        self.validator.add_event_handler(Events.ITERATION_STARTED, self.see_held_out)
        if self.kill_after:
            engine.add_event_handler(Events.EPOCH_COMPLETED(once=self.kill_after), self.kill)

    def start(self, engine):
        self.seen["start"] = self.weights()
        self.seen["steps"] = engine.state.epoch_length

    def see_batch(self, engine):
        self.seen["rate"].append(self.optimizer.param_groups[0]["lr"])
        self.seen["case"].append(list(engine.state.batch["case"]))
        self.seen["image"].append(convert_to_tensor(engine.state.batch["image"], track_meta=False))
        if self.fix_masks:
            self.network._masking = masking(self.network.masking_ratio, engine.state.iteration)

    def see_loss(self, engine):
        output = engine.state.output
        loss = (output if isinstance(output, dict) else output[0])["loss"]
        self.seen["loss"].append(float(torch.as_tensor(loss).detach()))
        if self.fix_masks:
            del self.network._masking

    def see_held_out(self, engine):
        self.seen["held"] += list(engine.state.batch["case"])

    def see_metrics(self, engine):
        metrics = self.validator.state.metrics  # per region as one dict too
        scalars = {k: float(v) for k, v in metrics.items() if not isinstance(v, dict)}
        self.seen["metrics"].append(scalars)

    def save(self, engine):
        self.seen["end"] = self.weights()
        inner = getattr(self.optimizer, "optim", self.optimizer)  # of a sharded one, the own shard
        states = (value for state in inner.state.values() for value in state.values())
        self.seen["state_bytes"] = sum(value.nbytes for value in states)
        torch.save(self.seen, self.path)

    def weights(self):
        return {key: value.clone() for key, value in self.network.state_dict().items()}

    def kill(self, engine):
        self.save(engine)
        if idist.get_world_size() > 1:
            distributed.barrier()  # until rank 0 has written what it writes
        os.kill(os.getpid(), signal.SIGKILL)


def masking(ratio, iteration):
    """MONAI's masking, with the draws of one process that has the batches of all."""

    def draw(tokens, masking_ratio=None):
        batch, number, _ = tokens.shape
        torch.manual_seed(iteration)
        every = torch.multinomial(
            torch.ones(batch * idist.get_world_size(), number), int((1 - ratio) * number)
        )
        kept = every[idist.get_rank() :: idist.get_world_size()]
        rows = torch.arange(batch)[:, None]
        mask = torch.ones(batch, number, dtype=torch.int)
        mask[rows, kept] = 0
        return tokens[rows, kept], kept, mask

    return draw
