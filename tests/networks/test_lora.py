import copy
import math

import pytest
import torch
from torch import nn

from lora_ext.networks.lora import ChannelLoRALinear, adapter_scale, add_channel_lora


@pytest.fixture
def layer():
    torch.manual_seed(0)
    layer = ChannelLoRALinear(nn.Linear(6, 5), channels=3, rank=2, alpha=4.0)
    nn.init.normal_(layer.lora_B)
    return layer


def test_fresh_adapter_changes_nothing():
    linear = nn.Linear(6, 5)
    layer = ChannelLoRALinear(linear, channels=3, rank=2, alpha=4.0)
    x = torch.randn(6, 7, 6)
    assert torch.equal(layer(x), linear(x))


def test_output_is_the_equation_written_out(layer):
    x = torch.randn(3 * 2, 7, 6)  # channel-major: two images of three channels
    y = layer(x)
    for row in range(6):
        a, b = layer.lora_A[row // 2], layer.lora_B[row // 2]
        expected = x[row] @ layer.weight.T + layer.bias + 4 / math.sqrt(2) * (x[row] @ a.T) @ b.T
        torch.testing.assert_close(y[row], expected)


def test_scale_is_rank_stabilised():
    scales = [ChannelLoRALinear(nn.Linear(4, 4), 1, r, alpha=8.0).scale for r in (1, 4, 16)]
    assert scales == [8.0, 4.0, 2.0]


@pytest.mark.parametrize("rank", [1, 4, 32, 128])
def test_classical_scale_is_the_rank_stabilised_one_by_the_root_of_the_rank(rank):
    stabilised, classical = (
        ChannelLoRALinear(nn.Linear(4, 4), 1, rank, 8.0, scaling).scale
        for scaling in ("rank_stabilised", "classical")
    )
    assert classical == pytest.approx(stabilised / math.sqrt(rank))
    assert (classical == stabilised) == (rank == 1)
    assert classical == 8.0 / rank


def test_scaling_reaches_every_adapted_layer():
    block = nn.ModuleDict({"linear1": nn.Linear(4, 4), "linear2": nn.Linear(4, 4)})
    add_channel_lora(block, ("linear1", "linear2"), 2, 4, 8.0, "classical")
    assert [layer.scale for layer in block.values()] == [2.0, 2.0]


def test_unknown_scaling_is_named_with_the_allowed_ones():
    with pytest.raises(ValueError, match=r"'rslora'; allowed are rank_stabilised, classical"):
        adapter_scale(8.0, 4, "rslora")


def test_active_channels_pick_their_own_adapters(layer):
    x = torch.randn(3, 7, 6)
    everything = layer(x)
    layer.active = [2, 0]
    torch.testing.assert_close(layer(x[[2, 0]]), everything[[2, 0]])


def test_plain_checkpoint_lacks_only_the_adapters(layer):
    missing, unexpected = layer.load_state_dict(nn.Linear(6, 5).state_dict(), strict=False)
    assert set(missing) == {"lora_A", "lora_B"}
    assert unexpected == []


def test_adapter_shares_the_base_weight_and_does_not_copy_it():
    linear = nn.Linear(6, 5)
    layer = ChannelLoRALinear(linear, 2, 2, 1.0)
    assert layer.weight is linear.weight
    assert layer.bias is linear.bias


def test_layer_without_bias_stays_without():
    layer = ChannelLoRALinear(nn.Linear(6, 5, bias=False), 2, 2, 1.0)
    assert layer.bias is None
    assert set(layer.state_dict()) == {"weight", "lora_A", "lora_B"}


def test_only_named_layers_get_adapters():
    block = nn.ModuleDict(
        {"attn": nn.ModuleDict({"out_proj": nn.Linear(4, 4)}), "linear1": nn.Linear(4, 4)}
    )
    before = copy.deepcopy(block.state_dict())
    add_channel_lora(block, ("out_proj",), 2, 2, 1.0)
    adapted = {n for n, m in block.named_modules() if isinstance(m, ChannelLoRALinear)}
    assert adapted == {"attn.out_proj"}
    assert all(torch.equal(block.state_dict()[k], v) for k, v in before.items())


def test_unknown_target_is_named_with_the_allowed_ones():
    with pytest.raises(ValueError, match=r"lora_targets \['fc1'\].*\['linear1'\]"):
        add_channel_lora(nn.ModuleDict({"linear1": nn.Linear(4, 4)}), ("fc1",), 2, 2, 1.0)


def test_adapting_twice_is_refused():
    block = nn.ModuleDict({"linear1": nn.Linear(4, 4)})
    add_channel_lora(block, ("linear1",), 2, 2, 1.0)
    with pytest.raises(ValueError, match="already"):
        add_channel_lora(block, ("linear1",), 2, 2, 1.0)


@pytest.mark.parametrize(("channels", "rank"), [(0, 2), (2, 0)])
def test_sizes_below_one_are_refused(channels, rank):
    with pytest.raises(ValueError, match="at least 1"):
        ChannelLoRALinear(nn.Linear(4, 4), channels, rank, 1.0)
