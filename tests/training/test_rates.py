import pytest
import torch

from lora_ext.networks.regimes import REGIMES, parameter_parts
from lora_ext.training import param_groups


@pytest.mark.parametrize("regime", REGIMES)
def test_every_trained_parameter_is_in_one_group(small_network, regime):
    network = small_network(regime=regime)
    groups = param_groups(network, 0.1, 0.01)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in network.trainable_parameters())


@pytest.mark.parametrize("regime", REGIMES)
def test_only_a_trained_pretrained_encoder_has_a_rate_of_its_own(small_network, regime):
    network = small_network(regime=regime)
    groups = param_groups(network, 0.1, 0.01)
    if regime != "finetune":
        assert [group["lr"] for group in groups] == [0.1]
        return
    assert [group["lr"] for group in groups] == [0.1, 0.01]
    assert {id(p) for p in groups[1]["params"]} == {
        id(p) for p in parameter_parts(network)["encoder"]
    }


def test_without_a_second_rate_there_is_one_group(small_network):
    assert len(param_groups(small_network(regime="finetune"), 0.1)) == 1


def test_rates_reach_the_optimizer_and_the_schedule(small_network):
    groups = param_groups(small_network(regime="finetune"), 0.1, 0.01)
    optimizer = torch.optim.Adam(groups, lr=0.1)
    rates = [group["lr"] for group in optimizer.param_groups]
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=10, div_factor=25)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.004, 0.0004])


def test_negative_rate_is_refused(small_network):
    with pytest.raises(ValueError, match="found -1; allowed"):
        param_groups(small_network(regime="finetune"), 0.1, -1)
