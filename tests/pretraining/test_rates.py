"""Pre-training's learning rate and weight decay, against He et al.'s own code and timm's rule."""

import json
import math

import pytest
import torch
from monai.bundle import ConfigParser

from lora_ext.pretraining import warm_up


@pytest.fixture
def schedule(root):
    """A function that builds optimizer and schedule as the bundle's config has them."""
    path = root / "bundles" / "mae_pretrain" / "configs" / "train.json"
    config = json.loads(path.read_text(encoding="utf-8"))

    def build(network, epochs, steps, warmup_epochs):
        parser = ConfigParser({
            "imports": ["$import torch", "$import lora_ext"],
            "learning_rate": 0.5, "weight_decay": 0.05, "warmup_epochs": warmup_epochs,
            "network_def": network, "train": {"dataloader": range(steps),
                                              "trainer": {"max_epochs": epochs}},
            "optimizer": config["optimizer"], "lr_scheduler": config["lr_scheduler"],
        })  # fmt: skip
        return (parser.get_parsed_content(name) for name in ("optimizer", "lr_scheduler"))

    return build


def he(step, epochs, steps, warmup):
    """util/lr_sched.py of facebookresearch/mae, min_lr 0: its epoch is data_iter / len + epoch."""
    epoch = step / steps
    if epoch < warmup:
        return 0.5 * epoch / warmup
    return 0.5 * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


@pytest.mark.parametrize(("given", "warmup"), [(None, 2), (5, 5), (0, 0)])
def test_rate_is_he_et_als_at_every_step(autoencoder, schedule, given, warmup):
    optimizer, scheduler = schedule(autoencoder(), 20, 3, given)
    rates = []
    for _ in range(60):
        rates.append({group["lr"] for group in optimizer.param_groups})
        optimizer.step()
        scheduler.step()
    assert all(len(rate) == 1 for rate in rates)
    expected = [he(step, 20, 3, warmup) for step in range(60)]
    assert [*map(min, rates)] == pytest.approx(expected, abs=1e-12)
    assert {tuple(group["betas"]) for group in optimizer.param_groups} == {(0.9, 0.95)}


def test_schedule_goes_on_from_a_file_that_holds_weights_only(autoencoder, schedule, tmp_path):
    network = autoencoder()
    runs = [[*schedule(network, 20, 3, 4)] for _ in range(2)]
    for _ in range(17):
        runs[0][0].step()
        runs[0][1].step()
    torch.save([thing.state_dict() for thing in runs[0]], tmp_path / "state")
    states = torch.load(tmp_path / "state", weights_only=True)
    for thing, state in zip(runs[1], states, strict=True):
        thing.load_state_dict(state)
    for _ in range(40):
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer, _ in runs]
        assert rates[0] == rates[1]
        for optimizer, scheduler in runs:
            optimizer.step()
            scheduler.step()


def test_only_matrices_and_tokens_decay(autoencoder):
    network = autoencoder()
    decayed, free = network.param_groups(0.05)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    names = {id(p): name for name, p in network.named_parameters()}
    free_names = {names[id(p)] for p in free["params"]}
    norms = {
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
    }
    assert free_names == norms | {n for n in names.values() if n.endswith(".bias")}
    trained = {n for n, p in network.named_parameters() if p.requires_grad}
    assert {names[id(p)] for p in decayed["params"]} == trained - free_names
    assert not any("position" in names[id(p)] for p in decayed["params"])


def test_warm_up_is_a_tenth_of_the_epochs_or_what_is_given():
    assert (warm_up(400), warm_up(2), warm_up(400, 7), warm_up(400, 0)) == (40, 0.2, 7, 0)
