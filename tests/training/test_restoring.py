"""A ``last.ckpt`` that does not fit the run ends it in one sentence, and changes nothing."""

import copy
import itertools

import pytest
import torch
from ignite.engine import Engine

from lora_ext.training import LastCheckpoint


def parts(network, optimizer=torch.optim.Adam, steps=4, schedule=None):
    """What a run saves: the network, its optimizer and its schedule."""
    made = optimizer(network.trainable_parameters(), lr=0.01)
    schedule = schedule or (lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.01, total_steps=4))
    return {"network": network, "optimizer": made, "lr_scheduler": schedule(made)}


def engines():
    trainer, validator = Engine(print), Engine(print)
    trainer.state.epoch, trainer.state.iteration, trainer.state.max_epochs = 1, 2, 2
    trainer.state.epoch_length = 2
    validator.state.best_metric, validator.state.best_metric_epoch = 0.5, 1
    return trainer, validator


@pytest.fixture
def saved(tmp_path, small_network):
    """The path of a good file, written after one step."""
    objects = parts(small_network(seed=3))
    for parameter in objects["network"].trainable_parameters():
        parameter.grad = torch.ones_like(parameter)
    objects["optimizer"].step()
    trainer, validator = engines()
    LastCheckpoint(tmp_path, objects, validator).save(trainer)
    return tmp_path / "last.ckpt"


def refused(path, objects):
    """The sentence that ends the run; the network and the optimizer are as they were."""
    network, optimizer = objects["network"], objects["optimizer"]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    held = copy.deepcopy(optimizer.state_dict())
    trainer, validator = engines()
    with pytest.raises(ValueError, match=r"last\.ckpt") as error:
        LastCheckpoint(path.parent, objects, validator, resume=True).load(trainer)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500 + len(str(path))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert optimizer.state_dict() == held
    return text


def test_good_file_is_restored(saved, small_network):
    objects = parts(small_network())
    trainer, validator = engines()
    LastCheckpoint(saved.parent, objects, validator, resume=True).load(trainer)
    state = torch.load(saved, weights_only=True)
    for key, value in objects["network"].state_dict().items():
        assert torch.equal(value, state["network"][key])
    assert len(objects["optimizer"].state_dict()["state"]) == len(state["optimizer"]["state"])


@pytest.mark.parametrize(
    "content", [b"", b"text", lambda whole: whole[: len(whole) // 2], lambda whole: whole[:-1]]
)
def test_damaged_file_is_refused(saved, small_network, content):
    whole = saved.read_bytes()
    saved.write_bytes(content if isinstance(content, bytes) else content(whole))
    assert "copy or download it again" in refused(saved, parts(small_network()))


@pytest.mark.parametrize(
    "content", [{}, [1], 3, {"epoch": 3}, {"state_dict": {"a": torch.ones(2)}}, torch.ones(3)]
)
def test_file_of_somebody_else_is_refused(saved, small_network, content):
    torch.save(content, saved)
    text = refused(saved, parts(small_network()))
    assert "expected the state of a training: give the --ckpt_dir of the run to resume" in text


@pytest.mark.parametrize("value", [None, "three", 0, 1.5, True])
@pytest.mark.parametrize("key", ["epoch", "iteration", "max_epochs"])
def test_count_that_is_none_is_refused(saved, small_network, key, value):
    torch.save({**torch.load(saved, weights_only=True), key: value}, saved)
    assert f"found {key} " in refused(saved, parts(small_network()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *itertools.product(("network", "optimizer", "lr_scheduler"), (None, 3, {}, {"a": 1})),
        *itertools.product(("records", "best_metric"), (None, "text", [])),
    ],
)
def test_part_that_is_none_is_refused(saved, small_network, key, value):
    torch.save({**torch.load(saved, weights_only=True), key: value}, saved)
    refused(saved, parts(small_network()))


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ({"lora_rank": 2}, "--lora_rank"),
        ({"feature_size": 4}, "--feature_size"),
        ({"num_layers": 2}, "--num_layers"),
        ({"regime": "finetune"}, "--regime"),
        ({"out_channels": 2}, "network needs"),
    ],
)
def test_another_network_is_refused(saved, small_network, sizes, found):
    text = refused(saved, parts(small_network(**sizes)))
    assert any(part in text for part in found.split("|"))


def test_network_that_trains_other_parameters_is_refused(tmp_path, saved, small_network):
    state = torch.load(saved, weights_only=True)
    state["optimizer"]["param_groups"][0]["params"].pop()
    torch.save(state, saved)
    assert "its optimizer: found groups of [" in refused(saved, parts(small_network()))


def test_another_optimizer_is_refused(saved, small_network):
    objects = parts(small_network(), torch.optim.SGD)
    assert "its optimizer: lacks " in refused(saved, objects)


def test_another_schedule_is_refused(saved, small_network):
    objects = parts(small_network(), schedule=lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 4))
    refused(saved, objects)


def test_weights_that_are_not_finite_are_refused(saved, small_network):
    state = torch.load(saved, weights_only=True)
    state["network"]["decoder.out.conv.conv.bias"][0] = float("nan")
    torch.save(state, saved)
    assert "1 of 3 numbers that are not finite" in refused(saved, parts(small_network()))
