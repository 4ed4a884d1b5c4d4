import pytest
import torch
from monai.networks.nets import ViT

from lora_ext.networks.encoder import ChannelEncoder

SIZES = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 4, "num_heads": 4}


def gradients(network):
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def test_batched_pass_equals_the_switched_one_in_output_and_gradients(small_network, wake_adapters):
    network = wake_adapters(small_network(in_channels=3)).double()
    encoder = network.encoder
    x = torch.randn(2, 3, 32, 32, 16, dtype=torch.float64)

    batched = encoder(x)
    sum(tap.square().sum() for tap in batched).backward()
    batched_gradients = {n: g.clone() for n, g in gradients(encoder).items()}
    network.zero_grad()

    switched = []
    for index, name in enumerate(encoder.channel_names):
        with encoder.channels(name):
            switched.append(encoder(x[:, index : index + 1]))
    taps = [torch.cat(channel_taps, dim=1) for channel_taps in zip(*switched, strict=True)]
    sum(tap.square().sum() for tap in taps).backward()

    for one, other in zip(batched, taps, strict=True):
        torch.testing.assert_close(one, other)
    assert gradients(encoder).keys() == batched_gradients.keys()
    for name, gradient in gradients(encoder).items():
        torch.testing.assert_close(gradient, batched_gradients[name], msg=name)


def test_every_adapter_of_every_channel_gets_a_gradient_when_switched(small_network, wake_adapters):
    encoder = wake_adapters(small_network(in_channels=3)).encoder
    x = torch.randn(1, 3, 32, 32, 16)
    loss = 0.0
    for index in range(3):
        with encoder.channels(index):
            loss = loss + encoder(x[:, index : index + 1])[-1].square().sum()
    loss.backward()
    for name, parameter in encoder.named_parameters():
        if "lora" in name:
            assert parameter.grad.flatten(1).any(dim=1).all(), name


def test_channels_by_name_ignore_case_and_equal_the_index(small_network, wake_adapters):
    network = wake_adapters(small_network(modalities=["FLAIR", "t1gd"]))
    x = torch.randn(1, 1, 32, 32, 16)
    with network.encoder.channels("T1GD"):
        by_name = network.encoder(x)
    with network.encoder.channels(1):
        by_index = network.encoder(x)
    assert torch.equal(by_name[-1], by_index[-1])
    with network.encoder.channels("FLAIR"):
        assert not torch.equal(network.encoder(x)[-1], by_name[-1])


def test_switch_is_undone_after_the_block_and_after_an_error(small_network, wake_adapters):
    network = wake_adapters(small_network())
    x = torch.randn(1, 2, 32, 32, 16)
    before = network.encoder(x)[-1]
    with pytest.raises(RuntimeError, match="boom"), network.encoder.channels(0):
        raise RuntimeError("boom")
    assert torch.equal(network.encoder(x)[-1], before)


def test_nested_switches_unwind_in_order(small_network):
    encoder = small_network(in_channels=3).encoder
    with encoder.channels(0, 2):
        with encoder.channels(1):
            assert encoder(torch.randn(1, 1, 32, 32, 16))[0].shape[1] == 1
        assert encoder(torch.randn(1, 2, 32, 32, 16))[0].shape[1] == 2
    assert encoder(torch.randn(1, 3, 32, 32, 16))[0].shape[1] == 3


def test_encoder_without_adapters_is_monais_vit():
    torch.manual_seed(0)
    vit = ViT(in_channels=1, img_size=(32, 32, 16), patch_size=16, **SIZES).eval()
    encoder = ChannelEncoder(["MR"], (32, 32, 16), **SIZES)
    missing, unexpected = encoder.load_state_dict(vit.state_dict(), strict=False)
    assert missing == []
    assert {k.split(".")[2] for k in unexpected} == {"norm_cross_attn"}
    x = torch.randn(2, 1, 32, 32, 16)
    normed, hidden = vit(x)
    taps = encoder(x)
    for tap, expected in zip(taps, [hidden[1], hidden[2], hidden[3], normed], strict=True):
        torch.testing.assert_close(tap[:, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "taps"), [(12, [3, 6, 9]), (4, [1, 2, 3]), (2, [0, 1, 1]), (1, [0, 0, 0])]
)
def test_taps_follow_the_depth(layers, taps):
    sizes = {**SIZES, "num_layers": layers}
    assert ChannelEncoder(["MR"], (16, 16, 16), **sizes).taps == taps


def test_encoder_has_no_parameter_without_a_gradient():
    encoder = ChannelEncoder(["a", "b"], (32, 32, 16), **SIZES)
    sum(t.square().sum() for t in encoder(torch.randn(1, 2, 32, 32, 16))).backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("recompute", [False, True])
def test_frozen_encoder_builds_no_graph(small_network, recompute):
    network = small_network(regime="frozen", activation_checkpointing=recompute)
    x = torch.randn(1, 2, 32, 32, 16)
    assert not any(tap.requires_grad for tap in network.encoder(x))
    assert network(x).requires_grad


def test_nothing_is_kept_below_the_first_adapted_layer(small_network):
    encoder, graphs = small_network(regime="lora").encoder, {}
    attention = encoder.blocks[0].attn
    for name in ("qkv", "out_proj"):
        layer = attention.get_submodule(name)
        layer.register_forward_hook(lambda *call, name=name: graphs.update({name: call[2].grad_fn}))
    encoder(torch.randn(1, 2, 32, 32, 16))
    assert graphs["qkv"] is None
    assert graphs["out_proj"] is not None


@pytest.mark.parametrize("channel", ["T2", 2, -1])
def test_unknown_channel_is_named_with_the_known_ones(small_network, channel):
    encoder = small_network(modalities=["FLAIR", "t1gd"]).encoder
    with (
        pytest.raises(ValueError, match=r"unknown channel .*\['FLAIR', 't1gd'\]"),
        encoder.channels(channel),
    ):
        pass


def test_no_channel_at_all_is_refused(small_network):
    with pytest.raises(ValueError, match="at least one"), small_network().encoder.channels():
        pass


@pytest.mark.parametrize("shape", [(1, 3, 32, 32, 16), (1, 2, 32, 32, 32), (2, 32, 32, 16)])
def test_wrong_input_is_refused_with_both_shapes(small_network, shape):
    with pytest.raises(ValueError, match=r"takes \(batch, 2, 32, 32, 16\).*got"):
        small_network().encoder(torch.zeros(shape))


@pytest.mark.parametrize(
    ("names", "size", "sizes", "message"),
    [
        (["a", "A"], (32, 32, 16), {}, "must differ"),
        (["a"], (32, 32, 20), {}, "multiples of 16"),
        (["a"], (32, 32), {}, "three multiples"),
        (["a"], (32, 32, 16), {"num_heads": 5}, "multiple of num_heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(names, size, sizes, message):
    with pytest.raises(ValueError, match=message):
        ChannelEncoder(names, size, **{**SIZES, **sizes})


PUBLISHED = {"qkv_bias": True, "num_prefix_tokens": 3, "norm_eps": 1e-6}


def test_batched_equals_switched_with_prefix_tokens_and_biases(small_network, wake_adapters):
    network = wake_adapters(
        small_network(in_channels=3, lora_targets=["qkv", "out_proj"], **PUBLISHED)
    ).double()
    torch.nn.init.normal_(network.encoder.blocks[0].attn.qkv.bias)
    x = torch.randn(2, 3, 32, 32, 16, dtype=torch.float64)
    batched = network.encoder(x)
    for index in range(3):
        with network.encoder.channels(index):
            switched = network.encoder(x[:, index : index + 1])
        for one, other in zip(batched, switched, strict=True):
            assert one.shape == (2, 3, 4, 48)
            torch.testing.assert_close(one[:, index : index + 1], other)


def test_prefix_tokens_take_part_in_attention_and_get_a_gradient():
    torch.manual_seed(0)
    encoder = ChannelEncoder(["MR"], (32, 32, 16), **SIZES, num_prefix_tokens=2)
    x = torch.randn(1, 1, 32, 32, 16)
    before = encoder(x)[-1]
    before.square().sum().backward()
    assert encoder.prefix_tokens.grad.abs().sum() > 0
    torch.nn.init.ones_(encoder.prefix_tokens)
    assert not torch.allclose(encoder(x)[-1], before)


def test_published_forms_can_be_scripted():
    encoder = ChannelEncoder(["a", "b"], (32, 32, 16), **SIZES, **PUBLISHED)
    x = torch.randn(1, 2, 32, 32, 16)
    for one, other in zip(torch.jit.script(encoder)(x), encoder(x), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("wrong", [{"num_prefix_tokens": -1}, {"norm_eps": 0.0}])
def test_impossible_forms_are_refused(wrong):
    with pytest.raises(ValueError, match="num_prefix_tokens must be 0 or more and norm_eps above"):
        ChannelEncoder(["MR"], (16, 16, 16), **SIZES, **wrong)
