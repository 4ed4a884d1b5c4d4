"""One call makes a network faster and changes nothing else."""

import copy

import pytest
import torch
from monai.inferers import SimpleInferer
from monai.networks.nets import UNETR, DynUNet
from torch import nn

from lora_ext import acceleration
from lora_ext.acceleration import AcceleratedInferer, accelerate

REGIMES = ["baseline", "finetune", "frozen", "lora"]
IMAGE = torch.randn(1, 2, 32, 32, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def keep_memory(monkeypatch):
    """Whether freed memory was asked to be kept; this process is left as it is."""
    asked = []
    monkeypatch.setattr(acceleration, "keep_freed_memory", asked.append)
    return asked


def classes(network):
    return [type(module) for module in network.modules()]


def gradients(network, image):
    network(image).square().mean().backward()
    return {n: p.grad for n, p in network.named_parameters() if p.requires_grad}


PUBLISHED = {"qkv_bias": True, "num_prefix_tokens": 3, "norm_eps": 1e-6, "lora_targets": ["qkv"]}


@pytest.mark.parametrize(
    ("regime", "form"), [*((regime, {}) for regime in REGIMES), ("lora", PUBLISHED)]
)
def test_output_and_every_gradient_are_those_of_the_plain_network(
    small_network, wake_adapters, regime, form
):
    plain = wake_adapters(small_network(regime=regime, **form)).double()
    faster = accelerate(copy.deepcopy(plain), "cpu", "on")
    assert classes(faster) != classes(plain)
    expected, found = (gradients(network, IMAGE.double()) for network in (plain, faster))
    torch.testing.assert_close(faster(IMAGE.double()), plain(IMAGE.double()))
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_parameters_their_names_and_what_is_trained_stay(small_network):
    plain = small_network()
    faster = accelerate(copy.deepcopy(plain), "cpu", "on")
    ours, theirs = dict(faster.named_parameters()), dict(plain.named_parameters())
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert [p.requires_grad for p in ours.values()] == [p.requires_grad for p in theirs.values()]


@pytest.mark.parametrize(
    ("device", "setting", "compiled", "faster"),
    [
        ("cpu", "auto", False, True),
        ("cpu", "auto", True, False),  # torch.compile fuses the plain blocks itself
        ("cpu", "off", False, False),
        ("cuda", "auto", False, "cuda" in acceleration.MEASURED),
        ("mps", "auto", False, False),
        ("mps", "on", False, True),
    ],
)
def test_auto_uses_the_faster_blocks_where_they_were_measured(
    small_network, device, setting, compiled, faster
):
    network = small_network()
    before = classes(network)
    accelerate(network, device, setting, compile=compiled)
    assert (classes(network) != before) == faster


def test_memory_is_kept_where_the_faster_blocks_are_used_alone(small_network, keep_memory):
    accelerate(small_network(), "cpu", "off")
    assert not keep_memory
    accelerate(small_network(), "cpu", "on")
    assert keep_memory == ["cpu"]


def test_a_second_call_changes_nothing(small_network):
    network = accelerate(small_network(), "cpu", "on")
    before = classes(network)
    assert classes(accelerate(network, "cpu", "on")) == before


@pytest.mark.parametrize(
    "network",
    [
        DynUNet(3, 1, 1, [3] * 3, [1, 2, 2], [2, 2], norm_name=("instance", {"affine": True}),
                res_block=True),
        UNETR(1, 1, (16, 16, 16), feature_size=4, hidden_size=24, mlp_dim=24, num_heads=2),
        nn.MultiheadAttention(8, 2),
    ],
    ids=["affine_norms", "monais_unetr", "other_attention"],
)  # fmt: skip
def test_networks_of_others_are_left_alone(network):
    before = classes(network)
    assert classes(accelerate(network, "cpu", "on")) == before


def test_unknown_setting_is_refused(small_network):
    with pytest.raises(ValueError, match=r"acceleration: expected one of auto, on, off, got 'yes'"):
        accelerate(small_network(), "cpu", "yes")


def test_on_together_with_compile_is_refused(small_network):
    with pytest.raises(ValueError, match=r"expected auto or off together with --compile True"):
        accelerate(small_network(), "cpu", "on", compile=True)


def test_inferer_accelerates_whatever_network_it_is_given_once_and_for_all(small_network):
    plain = small_network()
    network, inferer = copy.deepcopy(plain), AcceleratedInferer(SimpleInferer(), "on")
    with torch.no_grad():
        first, again = inferer(IMAGE, network), inferer(IMAGE, network)
        torch.testing.assert_close(first, plain(IMAGE), rtol=1e-4, atol=1e-5)
    assert torch.equal(first, again)
    assert classes(network) == classes(accelerate(copy.deepcopy(plain), "cpu", "on"))
    assert inferer(IMAGE, lambda image: image) is IMAGE
