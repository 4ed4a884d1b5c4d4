import copy

import pytest
import torch

from lora_ext.networks.regimes import REGIMES, parameter_parts

EXPECTED = {
    "baseline": {"encoder", "fusion", "decoder"},
    "finetune": {"encoder", "fusion", "decoder"},
    "frozen": {"fusion", "decoder"},
    "lora": {"adapters", "fusion", "decoder"},
}


def train_one_step(network):
    optimizer = torch.optim.Adam(network.trainable_parameters(), lr=1e-2)
    network(torch.randn(1, 2, 32, 32, 16)).square().mean().backward()
    optimizer.step()


def test_the_table_holds_the_papers_regimes():
    assert {name: set(regime.trained) for name, regime in REGIMES.items()} == EXPECTED
    assert [name for name, regime in REGIMES.items() if not regime.pretrained] == ["baseline"]


def test_parts_hold_every_parameter_once(small_network):
    network = small_network()
    parts = [p for part in parameter_parts(network).values() for p in part]
    assert len(parts) == len({id(p) for p in parts}) == len(list(network.parameters()))


@pytest.mark.parametrize("regime", EXPECTED)
def test_a_step_changes_what_the_regime_trains_and_leaves_the_rest_bit_equal(
    small_network, wake_adapters, regime
):
    network = wake_adapters(small_network(regime=regime))
    parts = parameter_parts(network)
    before = copy.deepcopy(parts)
    train_one_step(network)
    for part, parameters in parts.items():
        for old, new in zip(before[part], parameters, strict=True):
            assert torch.equal(old, new) == (part not in EXPECTED[regime]), part


@pytest.mark.parametrize("regime", EXPECTED)
def test_every_trained_parameter_gets_a_gradient_and_no_other(small_network, wake_adapters, regime):
    network = wake_adapters(small_network(regime=regime))
    network(torch.randn(1, 2, 32, 32, 16)).square().mean().backward()
    for part, parameters in parameter_parts(network).items():
        for parameter in parameters:
            assert (parameter.grad is not None) == (part in EXPECTED[regime])


def test_frozen_encoder_records_no_graph(small_network):
    taps = small_network(regime="frozen").encoder(torch.randn(1, 2, 32, 32, 16))
    assert all(tap.grad_fn is None for tap in taps)
