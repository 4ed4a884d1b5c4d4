"""Both ways of attention give the same, and the quicker one is taken."""

import pytest
import torch
from monai.networks.blocks import SABlock

from lora_ext.acceleration import accelerate, attention
from lora_ext.acceleration.attention import Attention
from lora_ext.networks.encoder import ChannelEncoder


@pytest.fixture
def pair():
    torch.manual_seed(0)
    theirs = SABlock(hidden_size=24, num_heads=3).double()
    ours = Attention(hidden_size=24, num_heads=3).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.fixture
def calls(monkeypatch):
    """How often `scaled_dot_product_attention` was called."""
    made = []
    original = torch.nn.functional.scaled_dot_product_attention

    def counted(*args, **kwargs):
        made.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(attention.functional, "scaled_dot_product_attention", counted)
    return made


def test_training_on_a_cpu_takes_the_plain_products_and_equals_monai(pair, calls):
    ours, theirs = pair
    x = torch.randn(2, 7, 24, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x))
    gradients = [torch.autograd.grad(m(x).square().sum(), [x, m.qkv.weight]) for m in pair]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)
    assert not calls


def test_without_gradients_it_never_holds_the_matrix_and_equals_monai(pair, calls):
    ours, theirs = pair
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
    assert len(calls) == 1


def test_many_tokens_never_hold_the_matrix(pair, calls, monkeypatch):
    monkeypatch.setattr(attention, "MANY_TOKENS", 7)
    pair[0](torch.randn(2, 7, 24, dtype=torch.float64, requires_grad=True))
    assert len(calls) == 1


def test_mask_hides_tokens(pair):
    ours, _ = pair
    x = torch.randn(1, 5, 24, dtype=torch.float64)
    mask = torch.tensor([True, True, True, False, False]).expand(5, 5)
    changed = x.clone()
    changed[:, 3:] += 1
    torch.testing.assert_close(ours(x, mask)[:, :3], ours(changed, mask)[:, :3])


def test_every_block_of_an_accelerated_encoder_has_it_and_of_a_plain_one_monais():
    encoder = ChannelEncoder(["a"], (16, 16, 16), hidden_size=24, num_layers=4, num_heads=3)
    assert {type(block.attn) for block in encoder.blocks} == {SABlock}
    accelerate(encoder, "cpu", "on")
    assert {type(block.attn) for block in encoder.blocks} == {Attention}


def test_plain_encoder_never_holds_the_matrix(calls):
    encoder = ChannelEncoder(["a"], (16, 16, 16), hidden_size=24, num_layers=4, num_heads=3)
    encoder(torch.rand(1, 1, 16, 16, 16))
    assert len(calls) == 4
