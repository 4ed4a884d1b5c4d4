"""HF peft as an oracle: the same weights must give the same output and the same gradients."""

import copy

import peft
import pytest
import torch
from monai.networks.nets import ViT

from lora_ext.networks.encoder import ChannelEncoder
from lora_ext.networks.lora import ChannelLoRALinear, add_channel_lora

SIZES = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 4, "num_heads": 4}
TARGETS = ("out_proj", "linear1")
CHANNELS = ("FLAIR", "T1w", "t1gd")


@pytest.fixture(params=["rank_stabilised", "classical"])
def pair(request):
    """Our encoder, and MONAI's ViT with one peft adapter per channel, of equal weights."""
    torch.manual_seed(0)
    encoder = ChannelEncoder(CHANNELS, (32, 32, 16), **SIZES)
    vit = ViT(in_channels=1, img_size=(32, 32, 16), patch_size=16, **SIZES)
    vit.load_state_dict(encoder.state_dict(), strict=False)
    add_channel_lora(encoder.blocks, TARGETS, len(CHANNELS), 4, 8.0, request.param)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8.0,
        use_rslora=request.param == "rank_stabilised",
        target_modules=list(TARGETS),
    )
    peer = peft.get_peft_model(vit, config, adapter_name=CHANNELS[0])
    for name in CHANNELS[1:]:
        peer.add_adapter(name, copy.deepcopy(config))
    for name, layer in encoder.named_modules():
        if isinstance(layer, ChannelLoRALinear):
            torch.nn.init.normal_(layer.lora_B, std=0.2)
            theirs = peer.base_model.model.get_submodule(name)
            for index, channel in enumerate(CHANNELS):
                theirs.lora_A[channel].weight.data.copy_(layer.lora_A[index])
                theirs.lora_B[channel].weight.data.copy_(layer.lora_B[index])
    return encoder.double(), peer.double()


def run_peer(peer, x):
    """Peft's loop, with the gradients of all adapters kept on: set_adapter turns them off."""
    outputs = []
    for index, channel in enumerate(CHANNELS):
        peer.set_adapter(channel)
        outputs.append(peer.base_model.model(x[:, index : index + 1])[0])
    for name, parameter in peer.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return torch.stack(outputs, dim=1)


def test_output_equals_pefts(pair):
    encoder, peer = pair
    x = torch.randn(2, 3, 32, 32, 16, dtype=torch.float64)
    torch.testing.assert_close(encoder(x)[-1], run_peer(peer, x))


def test_gradients_equal_pefts(pair):
    encoder, peer = pair
    x = torch.randn(2, 3, 32, 32, 16, dtype=torch.float64)
    encoder(x)[-1].square().sum().backward()
    run_peer(peer, x).square().sum().backward()
    layers = {n: m for n, m in encoder.named_modules() if isinstance(m, ChannelLoRALinear)}
    assert len(layers) == 8
    for name, layer in layers.items():
        theirs = peer.base_model.model.get_submodule(name)
        for index, channel in enumerate(CHANNELS):
            for ours, other in ((layer.lora_A, theirs.lora_A), (layer.lora_B, theirs.lora_B)):
                torch.testing.assert_close(ours.grad[index], other[channel].weight.grad)
