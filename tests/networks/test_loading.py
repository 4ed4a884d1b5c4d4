"""Whoever loads a state dict into a network of ours, only weights go in."""

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader
from monai.networks.utils import copy_model_state

KEY = "decoder.out.conv.conv.weight"


def by_torch(network, state, path):
    network.load_state_dict(state, strict=False)


def by_monais_loader(network, state, path):
    torch.save(state, path)
    CheckpointLoader(str(path), {"model": network})(Engine(print))


def by_monais_export(network, state, path):
    copy_model_state(network, state)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("load", [by_torch, by_monais_loader, by_monais_export])
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda t: t.fill_(float("nan")), r"24 of 24 numbers that are not finite.*first is nan"),
        (
            lambda t: t.double() + 1e39,
            r"24 of 24 numbers that are not finite in float32, the first is 1e\+39",
        ),
        (lambda t: t.int(), "int32 numbers"),
    ],
)
def test_what_is_no_weight_is_refused_before_anything_is_loaded(
    small_network, tmp_path, load, change, found, wrapped
):
    network, other = small_network(), small_network(seed=1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    target = torch.nn.ModuleDict({"module": network}) if wrapped else network
    prefix = "module." if wrapped else ""
    state = {prefix + k: v.clone() for k, v in other.state_dict().items()}
    state[prefix + KEY] = change(state[prefix + KEY])
    with pytest.raises(ValueError, match=f"'{KEY}' as {found}"):
        load(target, state, tmp_path / "model.pt")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_go_in(small_network, dtype):
    network, state = small_network(), small_network(seed=1).state_dict()
    network.load_state_dict({k: v.to(dtype) for k, v in state.items()})
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key].to(dtype).float())


def test_network_in_double_precision_takes_what_float32_could_not_hold(small_network):
    network = small_network().double()
    state = network.state_dict()
    state[KEY] = torch.full_like(state[KEY], 1e200)
    network.load_state_dict(state)
    assert network.state_dict()[KEY].flatten()[0] == 1e200
