import pytest
import torch
from monai.networks.nets import UNETR
from torch import nn

from lora_ext import ChannelLoRAUNETR, build_network


def test_one_channel_without_adapters_and_identity_fusion_is_monais_unetr():
    torch.manual_seed(0)
    sizes = {"feature_size": 4, "hidden_size": 48, "mlp_dim": 96, "num_heads": 4}
    peer = UNETR(1, 2, (32, 32, 16), **sizes)
    ours = ChannelLoRAUNETR(1, 2, (32, 32, 16), regime="baseline", num_layers=12, **sizes)
    state = peer.state_dict()
    vit = {k.removeprefix("vit."): v for k, v in state.items() if k.startswith("vit.")}
    ours.encoder.load_state_dict({k: v for k, v in vit.items() if "norm_cross_attn" not in k})
    ours.decoder.load_state_dict({k: v for k, v in state.items() if not k.startswith("vit.")})
    for linear in ours.fusion.linears:
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)

    x = torch.randn(2, 1, 32, 32, 16)
    out, expected = ours(x), peer(x)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    out.square().mean().backward()
    expected.square().mean().backward()
    for name, parameter in ours.encoder.named_parameters():
        other = peer.vit.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, other, rtol=1e-3, atol=1e-5, msg=name)


def test_zero_initialised_adapters_change_nothing(small_network):
    lora = small_network()
    frozen = small_network(regime="frozen")
    missing, unexpected = lora.load_state_dict(frozen.state_dict(), strict=False)
    assert unexpected == []
    assert {k.rpartition(".")[2] for k in missing} == {"lora_A", "lora_B"}
    x = torch.randn(1, 2, 32, 32, 16)
    torch.testing.assert_close(lora(x), frozen(x))


def test_channels_do_not_mix_before_the_fusion(small_network, wake_adapters):
    network = wake_adapters(small_network())
    x = torch.randn(1, 2, 32, 32, 16)
    changed = x.clone()
    changed[:, 1] += 1
    for tap, other in zip(network.encoder(x), network.encoder(changed), strict=True):
        assert torch.equal(tap[:, 0], other[:, 0])
        assert not torch.equal(tap[:, 1], other[:, 1])


def test_permuted_channels_with_permuted_weights_give_the_same_output(small_network, wake_adapters):
    network = wake_adapters(small_network(in_channels=3)).eval()
    other = small_network(in_channels=3).eval()
    order = [2, 0, 1]
    state = network.state_dict()
    for key, value in state.items():
        if "lora" in key:
            state[key] = value[order]
        elif key.startswith("fusion") and key.endswith("weight"):
            state[key] = value.unflatten(1, (3, -1))[:, order].flatten(1)
        elif key.startswith("decoder.encoder1") and value.dim() == 5 and value.shape[1] == 3:
            state[key] = value[:, order]
    other.load_state_dict(state)
    x = torch.randn(1, 3, 32, 32, 16)
    torch.testing.assert_close(network(x), other(x[:, order]), rtol=1e-4, atol=1e-4)


def test_absent_channel_has_no_influence(small_network, wake_adapters):
    network = wake_adapters(small_network()).eval()
    x = torch.randn(2, 2, 32, 32, 16)
    changed = x.clone()
    changed[0, 1] = 7.0
    present = torch.tensor([[True, False], [True, True]])
    assert torch.equal(network(x, present), network(changed, present))
    assert not torch.equal(network(x)[0], network(x, present)[0])
    torch.testing.assert_close(network(x)[1], network(x, present)[1])


def test_modality_dropout_hides_channels_in_training_only(small_network):
    network = small_network(modality_dropout=0.6)
    x = torch.randn(1, 2, 32, 32, 16)
    torch.manual_seed(0)
    outputs = {round(network(x).sum().item(), 3) for _ in range(12)}
    assert 2 <= len(outputs) <= 3  # both channels, only the first, only the second
    network.eval()
    assert torch.equal(network(x), network(x))


def test_modality_dropout_never_hides_every_channel(small_network):
    network = small_network(modality_dropout=0.95)
    present = network._draw_present(torch.zeros(500, 2, 1, 1, 1))
    assert present.any(dim=1).all()
    assert not present.all(dim=1).all()


@pytest.mark.parametrize("scaling", ["rank_stabilised", "classical"])
def test_scripted_network_gives_the_same_output(small_network, wake_adapters, scaling):
    network = wake_adapters(small_network(lora_scaling=scaling)).eval()
    x = torch.randn(1, 2, 32, 32, 16)
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))


def test_scalings_differ_in_the_output_beyond_rank_one_and_are_kept_in_the_config(
    small_network, wake_adapters
):
    x = torch.randn(1, 2, 32, 32, 16)
    for rank, equal in ((1, True), (4, False)):
        stabilised = wake_adapters(small_network(lora_rank=rank)).eval()
        classical = wake_adapters(small_network(lora_rank=rank, lora_scaling="classical")).eval()
        assert torch.equal(stabilised(x), classical(x)) == equal
    assert stabilised.config["lora_scaling"] == "rank_stabilised"
    assert classical.config["lora_scaling"] == "classical"
    again = build_network(**classical.config)
    assert again.config == classical.config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"regime": "lora32"}, r"unknown regime 'lora32'; known are \['baseline'"),
        ({"modalities": ["FLAIR"]}, "as many modalities"),
        ({"out_channels": 0}, "out_channels at least 1"),
        ({"modality_dropout": 1.0}, r"\[0, 1\)"),
        ({"img_size": (33, 32, 16)}, "multiples of 16"),
        ({"lora_targets": ["query"]}, "must name linear layers"),
        ({"lora_scaling": "rslora"}, "'rslora'; allowed are rank_stabilised, classical"),
        ({"lora_scaling": "rslora", "regime": "frozen"}, "lora_scaling: found 'rslora'"),
    ],
)
def test_bad_arguments_are_refused_with_the_allowed_ones(small_network, arguments, message):
    with pytest.raises(ValueError, match=message):
        small_network(**arguments)
