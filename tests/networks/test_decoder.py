import copy

import pytest
import torch
from monai.networks.blocks import UnetrUpBlock
from monai.networks.blocks.dynunet_block import UnetResBlock
from monai.networks.nets import UNETR
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lora_ext.acceleration import accelerate
from lora_ext.acceleration import decoder as module
from lora_ext.acceleration.decoder import ChannelsLastDecoder, MergeBlock, ResidualBlock
from lora_ext.networks.decoder import UNETRDecoder

IMG_SIZE = (48, 32, 16)  # three sizes that differ; its two finer levels compose their kernels
GRID_POINTS = 3 * 2 * 1


class Hidden(nn.Module):
    """Stands for MONAI's ViT: gives hidden states that were made beforehand."""

    def forward(self, image):
        states = {3: self.taps[0], 6: self.taps[1], 9: self.taps[2]}
        return self.taps[3], states


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return UNETRDecoder(2, 3, IMG_SIZE, feature_size=8, hidden_size=48)


@pytest.fixture
def faster(plain):
    return accelerate(copy.deepcopy(plain), "cpu", "on")


@pytest.fixture(params=["plain", "faster"])
def decoder(request):
    """Either form, for what holds of both."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def peer(plain):
    """MONAI's own network with the decoder's weights."""
    network = monai_unetr()
    network.vit = Hidden()
    network.load_state_dict(plain.state_dict())
    return network


def monai_unetr():
    return UNETR(
        2, 3, IMG_SIZE, feature_size=8, hidden_size=48, mlp_dim=96, num_heads=4,
        norm_name="instance", res_block=True, conv_block=True,
    )  # fmt: skip


def inputs(batch, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    shapes = [(batch, 2, *IMG_SIZE)] + 4 * [(batch, GRID_POINTS, 48)]
    image, *taps = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    return image.requires_grad_(), [tap.requires_grad_() for tap in taps]


def forward(network, image, taps):
    if isinstance(network, UNETRDecoder):
        return network(image, taps)
    network.vit.taps = taps
    return network(image)


def run(network, image, taps, autocast=False):
    """The output and the gradient of every input and parameter, by name."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = forward(network, image, taps)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    named = {"image": image, **{f"tap {k}": tap for k, tap in enumerate(taps)}}
    named.update(network.named_parameters())
    gradients = torch.autograd.grad((out * weights.to(out.dtype)).sum(), list(named.values()))
    return out.detach(), dict(zip(named, gradients, strict=True))


class Convolutions(TorchDispatchMode):
    """Collects input and output of every convolution of a volume, also of those without module."""

    def __init__(self, network):
        super().__init__()
        self.parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
        self.volumes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        convolves = func is torch.ops.aten.convolution.default
        if convolves and args[0].untyped_storage().data_ptr() not in self.parameters:
            self.volumes.append((args[0], out))  # and not a kernel that is composed
        return out


def test_keys_and_shapes_are_those_of_monais_unetr(decoder):
    expected = {k: v.shape for k, v in monai_unetr().state_dict().items() if k[:4] != "vit."}
    assert {k: v.shape for k, v in decoder.state_dict().items()} == expected


@pytest.mark.parametrize("batch", [1, 2])
def test_output_and_gradients_are_those_of_monais_unetr(decoder, peer, batch):
    given = inputs(batch, torch.float64)
    out, gradients = run(decoder.double(), *given)
    expected, others = run(peer.double(), *given)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("batch", [1, 2])
def test_float32_output_is_that_of_monais_unetr(decoder, peer, batch):
    given = inputs(batch)
    with torch.no_grad():
        out, expected = forward(decoder, *given), forward(peer, *given)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_size_of_these_tests_has_levels_that_compose_and_levels_that_do_not(
    faster, monkeypatch, batch
):
    answers, pays = [], module.composing_pays
    monkeypatch.setattr(module, "composing_pays", lambda *a: answers.append(pays(*a)) or pays(*a))
    faster(*inputs(batch))
    assert answers == [False, False, True, True]


@pytest.mark.parametrize("pays", [False, True])
def test_composed_and_plain_levels_give_the_same(faster, peer, monkeypatch, pays):
    monkeypatch.setattr(module, "composing_pays", lambda *_: pays)
    given = inputs(1)
    with torch.no_grad():
        out, expected = forward(faster, *given), forward(peer, *given)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def convolutions(decoder, batch, autocast):
    """Input and output of every convolution in one pass."""
    recorder = Convolutions(decoder)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), recorder:
        decoder(*inputs(batch))
    # the image's block, the lifts, two plain merges, two composed ones, the output
    assert len(recorder.volumes) == 3 + (7 + 4 + 1) + 2 * 4 + 2 * 5 + 1
    return recorder.volumes


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 here"
)
@pytest.mark.parametrize("batch", [1, 2])
def test_every_convolution_reads_and_writes_channels_last_in_bfloat16(faster, batch):
    for volumes in convolutions(faster, batch, autocast=True):
        for volume in volumes:
            assert volume.dtype == torch.bfloat16
            assert volume.is_contiguous(memory_format=torch.channels_last_3d), volume.shape


# PyTorch does small float32 convolutions without oneDNN and contiguous: all for a batch of one
# below some 20000 numbers, and those with kernel 1
def test_every_convolution_reads_channels_last_in_float32(faster):
    contiguous = 0
    for volume, out in convolutions(faster, 2, autocast=False):
        assert volume.dtype == out.dtype == torch.float32
        assert volume.is_contiguous(memory_format=torch.channels_last_3d), volume.shape
        contiguous += not out.is_contiguous(memory_format=torch.channels_last_3d)
    assert contiguous <= 6  # the convolutions with kernel 1


@pytest.mark.parametrize("batch", [1, 2])
def test_bfloat16_is_no_further_from_the_truth_than_monais_blocks(decoder, peer, batch):
    given = inputs(batch)
    truth, true_gradients = run(peer, *given)
    out, gradients = run(decoder, *given, autocast=True)
    other, other_gradients = run(peer, *given, autocast=True)
    assert out.dtype == torch.bfloat16
    assert (out - truth).norm() <= 1.5 * (other - truth).norm()
    error, other_error = (
        sum((g[name] - true).square().sum() for name, true in true_gradients.items()).sqrt()
        for g in (gradients, other_gradients)
    )
    assert error <= 1.5 * other_error


def test_every_block_is_the_faster_one_and_the_decoder_is_channels_last(faster):
    blocks = [type(block) for block in faster.modules()]
    assert blocks.count(ChannelsLastDecoder) == 1
    assert blocks.count(MergeBlock) == 4
    assert blocks.count(ResidualBlock) == 8  # one for the image, three in the lifts, four merges
    assert not {UNETRDecoder, UnetrUpBlock, UnetResBlock} & set(blocks)


@torch.no_grad()
def test_scripted_decoder_gives_the_same(plain):
    scripted = torch.jit.script(plain)
    for batch in (1, 2):
        given = inputs(batch)
        torch.testing.assert_close(scripted(*given), plain(*given), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of functional.instance_norm
@torch.no_grad()
def test_traced_decoder_gives_the_same_for_any_batch(plain):
    traced = torch.jit.trace(plain, inputs(1), check_trace=False)
    for batch in (1, 2):
        given = inputs(batch)
        torch.testing.assert_close(traced(*given), plain(*given), rtol=1e-4, atol=1e-5)
