import copy
import gc
import weakref

import pytest
import torch

from lora_ext.acceleration import accelerate
from lora_ext.networks.checkpointing import recompute

REGIMES = ["lora", "frozen", "baseline"]


class Kept:
    """A tensor that autograd keeps for as long as it holds this."""

    def __init__(self, tensor):
        self.tensor = tensor


@pytest.fixture(params=["on", "off"])
def networks(request, small_network, wake_adapters):
    """A function that builds the same network without and with checkpointing."""

    def build(regime):
        pair = [small_network(regime=regime, activation_checkpointing=w) for w in (False, True)]
        return [accelerate(wake_adapters(network), "cpu", request.param) for network in pair]

    return build


def images(batch=2):
    return torch.randn(batch, 2, 32, 32, 16, generator=torch.Generator().manual_seed(2))


def loss_of(network, autocast=False):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return network(images()).float().square().mean()


def gradients(network):
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def kept_bytes(network):
    """Bytes that are kept for the gradients once the loss is there, parameters excepted."""
    kept = weakref.WeakSet()

    def pack(tensor):
        holder = Kept(tensor)
        kept.add(holder)
        return holder

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda holder: holder.tensor):
        loss = loss_of(network)
    gc.collect()
    assert loss.requires_grad  # and alive, with all that it keeps
    storages = [holder.tensor.untyped_storage() for holder in kept]
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(size for pointer, size in sizes.items() if pointer not in parameters)


def count_calls(network):
    """Count how often every module below is called."""
    calls = {}
    for name, module in network.named_modules():

        def count(*_, name=name):
            calls[name] = calls.get(name, 0) + 1

        module.register_forward_pre_hook(count)
    return calls


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("regime", REGIMES)
def test_loss_and_every_gradient_are_those_without(networks, regime, autocast):
    plain, checkpointed = networks(regime)
    losses = [loss_of(network, autocast) for network in (plain, checkpointed)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    for loss in losses:
        loss.backward()
    expected, found = gradients(plain), gradients(checkpointed)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


@pytest.mark.parametrize("regime", REGIMES)
def test_far_fewer_bytes_are_kept_for_the_gradients(networks, regime):
    plain, checkpointed = networks(regime)
    assert 0 < kept_bytes(checkpointed) < 0.5 * kept_bytes(plain)


@pytest.mark.parametrize("wanted", [False, True])
def test_every_adapter_of_every_channel_gets_a_gradient(networks, wanted):
    network = networks("lora")[wanted]
    loss_of(network).backward()
    adapters = {n: p for n, p in network.named_parameters() if "lora_" in n}
    assert len(adapters) == 4 * 2 * 2  # blocks, layers, A and B
    for name, parameter in adapters.items():
        assert parameter.grad.flatten(1).any(dim=1).all(), name


@pytest.mark.parametrize("regime", ["lora", "frozen"])
def test_frozen_weights_have_no_gradient(networks, regime):
    _, network = networks(regime)
    loss_of(network).backward()
    trained = {n for n, p in network.named_parameters() if p.requires_grad}
    assert set(gradients(network)) == trained
    assert not any(n.startswith("encoder") and "lora" not in n for n in trained)


@pytest.mark.parametrize("regime", REGIMES)
def test_nothing_is_computed_twice_without_gradients(networks, regime):
    pair = networks(regime)
    calls = [count_calls(network) for network in pair]
    with torch.no_grad():
        for network in pair:
            network(images())
    assert calls[1]["encoder.blocks.0"] == 1
    assert calls[1] == calls[0]


def test_blocks_are_computed_twice_for_the_gradients_and_the_rest_once(networks):
    pair = networks("lora")
    plain, calls = (count_calls(network) for network in pair)
    for network in pair:
        loss_of(network).backward()
    twice = {name for name, count in calls.items() if count == 2 * plain[name]}
    assert {name: plain[name] for name in calls.keys() - twice} == {
        name: calls[name] for name in calls.keys() - twice
    }
    assert {f"encoder.blocks.{k}.mlp.linear1" for k in range(4)} <= twice
    assert {"decoder.encoder1.layer.conv2", "decoder.decoder2.conv_block.conv2"} <= twice
    assert not {"encoder.patch_embedding", "fusion", "decoder", "decoder.out"} & twice


def test_blocks_of_a_frozen_encoder_are_computed_once(networks):
    _, network = networks("frozen")
    calls = count_calls(network)
    loss_of(network).backward()
    assert {calls[f"encoder.blocks.{k}.mlp"] for k in range(4)} == {1}


class Product(torch.nn.Module):
    def forward(self, a, b, c):
        return (a * b).exp() * c


def test_a_copy_recomputes_its_own_parameters():
    layer = torch.nn.Linear(3, 3)
    recompute(layer)
    other = copy.deepcopy(layer)
    torch.nn.init.zeros_(other.weight)
    other(torch.ones(1, 3)).sum().backward()
    assert layer.weight.grad is None
    assert torch.equal(other(torch.ones(1, 3))[0], other.bias)


def test_several_inputs_get_their_gradients():
    a, b, c = (torch.randn(3, requires_grad=wanted) for wanted in (True, False, True))
    block = Product()
    recompute(block)
    block(a, b, c).sum().backward()
    torch.testing.assert_close(a.grad, (b * (a * b).exp() * c).detach())
    torch.testing.assert_close(c.grad, (a * b).exp().detach())
    assert b.grad is None


def test_parameters_get_theirs_from_an_input_without():
    layer = torch.nn.Linear(3, 3)
    recompute(layer)
    layer(torch.randn(2, 3)).sum().backward()
    assert layer.weight.grad is not None
