import logging

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Events

from lora_ext.training import LastCheckpoint

EPOCHS = 4


class StopAfter:
    """Kills the run after an epoch, as a lost machine would."""

    def __init__(self, epoch):
        self.epoch = epoch

    def attach(self, engine):
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=self.epoch), self.stop)

    def stop(self, engine):
        raise KeyboardInterrupt


def run(tmp_path, network, build, resume=False, stop=None, epochs=EPOCHS):
    """Train; returns the learning rate of every step, and the evaluator."""
    rates = []

    def handlers(validator, optimizer):
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=2 * epochs)

        class Schedule:
            def attach(self, engine):
                engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)

            def step(self, engine):
                rates.append(optimizer.param_groups[0]["lr"])
                scheduler.step()

        objects = {"network": network, "optimizer": optimizer, "lr_scheduler": scheduler}
        last = [LastCheckpoint(tmp_path, objects, validator, resume=resume)]
        return [Schedule()], last + ([StopAfter(stop)] if stop else [])

    trainer, validator = build(network, handlers, epochs=epochs)
    try:
        trainer.run()
    except KeyboardInterrupt:
        assert stop
    return rates, validator


def test_killed_and_resumed_run_ends_where_an_unbroken_one_does(tmp_path, small_network, build):
    whole, resumed = small_network(), small_network()
    rates, evaluator = run(tmp_path / "whole", whole, build)
    first, _ = run(tmp_path / "cut", resumed, build, stop=2)
    resumed = small_network(seed=7)  # a new process starts from other weights
    second, resumed_evaluator = run(tmp_path / "cut", resumed, build, resume=True)
    assert first + second == rates
    assert len(second) == 4
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert resumed_evaluator.state.best_metric == evaluator.state.best_metric
    assert resumed_evaluator.state.best_metric_epoch == evaluator.state.best_metric_epoch


def test_finished_run_is_not_trained_again(tmp_path, small_network, build):
    run(tmp_path, small_network(), build)
    rates, _ = run(tmp_path, small_network(), build, resume=True)
    assert rates == []


def test_nothing_to_resume_is_said_and_starts_anew(tmp_path, small_network, build, caplog):
    caplog.set_level(logging.INFO)
    rates, _ = run(tmp_path, small_network(), build, resume=True, epochs=1)
    assert "nothing to resume" in caplog.text
    assert len(rates) == 2


def test_resuming_with_another_number_of_epochs_is_refused(tmp_path, small_network, build):
    run(tmp_path, small_network(), build, stop=1)
    with pytest.raises(ValueError, match="run of 4 epochs; resume with --epochs 4, not 6"):
        run(tmp_path, small_network(), build, resume=True, epochs=6)


def test_resuming_with_another_number_of_steps_is_refused(tmp_path, small_network, build):
    run(tmp_path, small_network(), build, stop=1)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    state["iteration"] *= 2  # as of a run with half the batch, or half as many processes
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="of 4 steps per epoch, this one has 2; resume with"):
        run(tmp_path, small_network(), build, resume=True)


def test_checkpoint_opens_with_weights_only(tmp_path, small_network, build):
    run(tmp_path, small_network(), build, epochs=1)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["epoch"] == 1


def test_only_rank_0_writes(tmp_path, small_network, build, monkeypatch):
    monkeypatch.setattr(idist, "get_rank", lambda: 1)
    network = small_network()
    trainer, _ = build(
        network, lambda v, o: ([], [LastCheckpoint(tmp_path, {"network": network}, v)]), epochs=1
    )
    trainer.run()
    assert list(tmp_path.iterdir()) == []


TWO = """
from pathlib import Path
import torch
from ignite.engine import Engine
import ignite.distributed as idist
from lora_ext.training import processes
from lora_ext.training import LastCheckpoint

processes.join("cpu")
folder = Path("0" if idist.get_rank() == 0 else "1")
folder.mkdir()
if idist.get_rank() == 0:
    state = {"epoch": 3, "iteration": 3, "max_epochs": 3, "records": {}}
    torch.save(state | {"best_metric": 0.5, "best_metric_epoch": 1}, folder / "last.ckpt")
try:
    LastCheckpoint(folder, {}, Engine(print), resume=True).load(Engine(print))
except ValueError as error:
    Path(f"{idist.get_rank()}.txt").write_text(str(error), encoding="utf-8")
processes.leave()
"""


def test_checkpoint_that_only_some_machines_see_is_refused_by_all(in_two_processes, tmp_path):
    done = in_two_processes(TWO)
    assert done.returncode == 0, done.stderr
    for rank in "01":
        sentence = (tmp_path / f"{rank}.txt").read_text(encoding="utf-8")
        assert "found the epochs [3, 0] in the run's processes" in sentence
        assert "--ckpt_dir a folder that all machines share" in sentence
