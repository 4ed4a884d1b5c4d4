"""The method on the second backbone; MONAI's SwinUNETR and HF peft as oracles."""

import copy
import warnings

import peft
import pytest
import torch
from monai.networks.nets import SwinUNETR
from torch import nn

from lora_ext import ChannelLoRASwinUNETR, build_network, network_from_record
from lora_ext.acceleration import accelerate
from lora_ext.networks.lora import ChannelLoRALinear
from lora_ext.networks.regimes import REGIMES, parameter_parts

SIZE = (64, 32, 32)
SIZES = {"feature_size": 12, "depths": (2, 1, 1, 1), "num_heads": (2, 2, 2, 2), "lora_rank": 4}
CHANNELS = ["FLAIR", "T1w"]


def build(in_channels=2, out_channels=3, img_size=SIZE, seed=0, **sizes):
    torch.manual_seed(seed)
    names = CHANNELS if in_channels == 2 else None
    arguments = {"modalities": names, **SIZES, **sizes}
    return ChannelLoRASwinUNETR(in_channels, out_channels, img_size, **arguments)


def monais(in_channels=1, out_channels=3):
    torch.manual_seed(7)
    sizes = {k: v for k, v in SIZES.items() if k != "lora_rank"}
    return SwinUNETR(in_channels, out_channels, **sizes)


def own_weights(network, peer):
    """Give our network the weights of MONAI's, its fusion the identity."""
    state = peer.state_dict()
    swin = {k.removeprefix("swinViT."): v for k, v in state.items() if k.startswith("swinViT.")}
    network.encoder.load_state_dict(swin, strict=True)
    network.decoder.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith("swinViT.")}, strict=True
    )
    for linear in network.fusion.linears:
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    return network


def test_one_channel_without_adapters_and_identity_fusion_is_monais_swin_unetr():
    peer = monais()
    ours = own_weights(build(1, regime="baseline"), peer)
    x = torch.randn(2, 1, *SIZE)
    out, expected = ours(x), peer(x)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    out.square().mean().backward()
    expected.square().mean().backward()
    for name, parameter in ours.encoder.named_parameters():
        other = peer.swinViT.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, other, rtol=1e-3, atol=1e-5, msg=name)


def test_features_equal_those_of_monais_transformer_exactly():
    """64, 32 and 16 tokens along the axes: padded and, in the second block, shifted windows."""
    size = (128, 64, 32)
    peer = monais().swinViT
    encoder = build(1, img_size=size, regime="frozen").encoder
    encoder.load_state_dict(peer.state_dict(), strict=True)
    x = torch.randn(1, 1, *size)
    with torch.no_grad():
        for tap, volume in zip(encoder(x), peer(x), strict=True):
            assert torch.equal(tap[:, 0], volume.flatten(2).transpose(1, 2))


def test_zero_initialised_adapters_change_nothing():
    lora, frozen = build(), build(regime="frozen")
    missing, unexpected = lora.load_state_dict(frozen.state_dict(), strict=False)
    assert unexpected == []
    assert {k.rpartition(".")[2] for k in missing} == {"lora_A", "lora_B"}
    x = torch.randn(1, 2, *SIZE)
    torch.testing.assert_close(lora(x), frozen(x))


@pytest.mark.parametrize("targets", [("out_proj", "linear1"), ("qkv", "linear2")])
def test_switched_equals_batched_gradients_too(wake_adapters, targets):
    network = wake_adapters(build(lora_targets=targets)).double()
    encoder, x = network.encoder, torch.randn(2, 2, *SIZE, dtype=torch.float64)
    layers = [m for m in encoder.modules() if isinstance(m, ChannelLoRALinear)]
    assert len(layers) == 10  # two in each of the five blocks

    def gradients(taps):
        network.zero_grad()
        sum(tap.square().sum() for tap in taps).backward()
        return [p.grad.clone() for layer in layers for p in layer.adapter_parameters()]

    batched = encoder(x)
    switched = []
    for index, name in enumerate(CHANNELS):
        with encoder.channels(name.lower()):
            switched.append(encoder(x[:, index : index + 1]))
    switched = [torch.cat(taps, dim=1) for taps in zip(*switched, strict=True)]
    torch.testing.assert_close(batched, switched)
    expected, found = gradients(batched), gradients(switched)
    assert all(grad.abs().sum() > 0 for grad in expected)
    torch.testing.assert_close(found, expected)


def test_output_and_gradients_equal_pefts(wake_adapters):
    """One channel, so that peft needs no switch."""
    encoder = wake_adapters(build(1, lora_alpha=8.0)).encoder
    peer = monais().swinViT
    peer.load_state_dict(encoder.state_dict(), strict=False)
    config = peft.LoraConfig(
        r=4, lora_alpha=8.0, use_rslora=True, target_modules=r"layers.*\.(attn\.proj|mlp\.linear1)"
    )
    peer = peft.get_peft_model(peer, config)
    layers = {n: m for n, m in encoder.named_modules() if isinstance(m, ChannelLoRALinear)}
    theirs = {name: peer.base_model.model.get_submodule(name) for name in layers}
    for name, layer in layers.items():
        theirs[name].lora_A["default"].weight.data.copy_(layer.lora_A[0])
        theirs[name].lora_B["default"].weight.data.copy_(layer.lora_B[0])
    x = torch.randn(1, 1, *SIZE)
    ours, other = encoder(x), [v.flatten(2).mT[:, None] for v in peer(x)]
    torch.testing.assert_close(ours, other)
    for taps in (ours, other):
        sum(tap.square().mean() for tap in taps).backward()
    for name, layer in layers.items():
        for pair, weight in ((layer.lora_A, "lora_A"), (layer.lora_B, "lora_B")):
            expected = getattr(theirs[name], weight)["default"].weight.grad
            torch.testing.assert_close(pair.grad[0], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("regime", "rank"),
    [("baseline", 4), ("finetune", 4), ("frozen", 4), ("lora", 2), ("lora", 4), ("lora", 8)],
)
def test_regime_trains_its_parts_and_leaves_the_others_bit_equal(regime, rank):
    network = build(regime=regime, lora_rank=rank).double()
    before = copy.deepcopy(parameter_parts(network))
    optimizer = torch.optim.SGD(network.trainable_parameters(), lr=0.1)
    for _ in range(2):  # adapters start at zero, so that A has no gradient in the first step
        optimizer.zero_grad()
        network(torch.randn(1, 2, *SIZE, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    for part, parameters in parameter_parts(network).items():
        changed = [not torch.equal(a, b) for a, b in zip(before[part], parameters, strict=True)]
        assert all(changed) if part in REGIMES[regime].trained else not any(changed), part


def test_absent_channel_has_no_influence(wake_adapters):
    network = wake_adapters(build()).eval()
    x = torch.randn(2, 2, *SIZE)
    changed = x.clone()
    changed[0, 1] = 7.0
    present = torch.tensor([[True, False], [True, True]])
    with torch.no_grad():
        assert torch.equal(network(x, present), network(changed, present))
        assert not torch.equal(network(x)[0], network(x, present)[0])


def test_checkpointing_and_acceleration_change_no_number(wake_adapters):
    plain = wake_adapters(build())
    other = wake_adapters(build(activation_checkpointing=True))
    other = accelerate(other, "cpu", "on")
    x = torch.randn(1, 2, *SIZE)
    for network in (plain, other):
        network(x).square().mean().backward()
    torch.testing.assert_close(other(x), plain(x))
    grads = [[p.grad for p in network.trainable_parameters()] for network in (other, plain)]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-5)


def test_record_builds_the_network_again_without_a_size():
    network = build(regime="frozen", lora_scaling="classical")
    assert network.config["backbone"] == "swin_unetr"
    record = {**network.config, "spacing": [1.0, 1.0, 1.0], "hidden_size": 768}
    again = network_from_record(record)
    assert type(again) is ChannelLoRASwinUNETR
    assert again.config == network.config
    again.load_state_dict(network.state_dict(), strict=True)


def test_traced_network_gives_the_same_output(wake_adapters):
    network = wake_adapters(build()).eval()
    x = torch.randn(1, 2, *SIZE)
    with torch.no_grad(), warnings.catch_warnings():
        # MONAI's window sizes depend on the image's size, which is fixed here
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, x)
        torch.testing.assert_close(traced(2 * x), network(2 * x))


def test_one_set_of_settings_serves_both_backbones(small_network):
    settings = {
        "in_channels": 2, "out_channels": 3, "feature_size": None, "num_heads": None,
        "hidden_size": 48, "mlp_dim": 96, "num_layers": 4, "depths": [1, 1, 1, 1], "lora_rank": 4,
    }  # fmt: skip
    with torch.device("meta"):
        unetr = build_network("unetr", **settings)
        swin = build_network("swin_unetr", **settings)
    assert (unetr.config["feature_size"], unetr.config["num_heads"]) == (64, 12)
    assert (swin.config["feature_size"], swin.config["num_heads"]) == (48, [3, 6, 12, 24])
    assert swin.config["depths"] == [1, 1, 1, 1]
    assert {p.device.type for p in swin.parameters()} == {"meta"}
    with pytest.raises(ValueError, match="backbone: found 'resnet'; allowed are unetr, swin_unetr"):
        build_network("resnet", in_channels=1, out_channels=1)
    with pytest.raises(TypeError, match="lora_rnak"):
        build_network("swin_unetr", in_channels=1, out_channels=1, lora_rnak=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"img_size": (64, 48, 32)}, "three multiples of 32 voxels, not all of them 32"),
        ({"img_size": (32, 32, 32)}, "three multiples of 32 voxels, not all of them 32"),
        ({"feature_size": 16}, "feature_size must be a multiple of 12"),
        ({"num_heads": (5, 2, 2, 2)}, "multiples of num_heads"),
        ({"depths": (2, 2, 2)}, "4 numbers each"),
        ({"num_heads": (2, 2, 2, 0)}, "from 1 on"),
        ({"lora_targets": ["proj"]}, "must name linear layers out of .'qkv', 'out_proj'"),
        ({"modalities": ["a", "A"]}, "channel names must differ"),
    ],
)
def test_bad_arguments_are_refused_with_the_allowed_ones(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_smallest_size_has_a_variance_at_the_coarsest_scale():
    with torch.no_grad():
        out = build(img_size=(32, 64, 32))(torch.randn(1, 2, 32, 64, 32))
    assert out.isfinite().all()
