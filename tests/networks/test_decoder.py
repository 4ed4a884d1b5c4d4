import pytest
import torch
from monai.networks.nets import UNETR
from torch import nn

from lora_ext.networks.decoder import UNETRDecoder

IMG_SIZE = (48, 32, 16)  # three sizes that differ
GRID_POINTS = 3 * 2 * 1


class Hidden(nn.Module):
    """Stands for MONAI's ViT: gives hidden states that were made beforehand."""

    def forward(self, image):
        states = {3: self.taps[0], 6: self.taps[1], 9: self.taps[2]}
        return self.taps[3], states


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return UNETRDecoder(2, 3, IMG_SIZE, feature_size=8, hidden_size=48)


@pytest.fixture
def peer(decoder):
    """MONAI's own network with the decoder's weights."""
    network = monai_unetr()
    network.vit = Hidden()
    network.load_state_dict(decoder.state_dict())
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


@torch.no_grad()
def test_scripted_decoder_gives_the_same(decoder):
    scripted = torch.jit.script(decoder)
    for batch in (1, 2):
        given = inputs(batch)
        torch.testing.assert_close(scripted(*given), decoder(*given), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of functional.instance_norm
@torch.no_grad()
def test_traced_decoder_gives_the_same_for_any_batch(decoder):
    traced = torch.jit.trace(decoder, inputs(1), check_trace=False)
    for batch in (1, 2):
        given = inputs(batch)
        torch.testing.assert_close(traced(*given), decoder(*given), rtol=1e-4, atol=1e-5)
