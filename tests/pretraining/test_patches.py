import pytest
import torch

from lora_ext.networks.encoder import ChannelEncoder
from lora_ext.pretraining.loss import from_patches, patch_statistics, to_patches


def test_patches_go_back_to_the_same_volume(volumes):
    assert torch.equal(from_patches(to_patches(volumes), (32, 32, 16)), volumes)


def test_patches_are_in_the_order_of_the_encoders_tokens():
    encoder = ChannelEncoder(["c"], (32, 48, 16), hidden_size=8, num_layers=1, num_heads=1)
    embedding = encoder.patch_embedding
    torch.nn.init.zeros_(embedding.position_embeddings)
    volume = torch.randn(1, 1, 32, 48, 16)
    kernel = embedding.patch_embeddings
    by_hand = to_patches(volume) @ kernel.weight.flatten(1).T + kernel.bias
    assert torch.allclose(by_hand, embedding(volume), atol=1e-4)


def test_statistics_are_each_patchs_own(volumes):
    mean, deviation = patch_statistics(to_patches(volumes))
    assert mean.shape == deviation.shape == (2, 4, 1)
    corner = volumes[1, 0, 16:, 16:]
    assert mean[1, 3, 0] == pytest.approx(corner.mean().item(), abs=1e-6)
    assert deviation[1, 3, 0] == pytest.approx(corner.std().item(), rel=1e-4)
    assert deviation[0, 0, 0] == pytest.approx(1e-3, rel=1e-3)  # air: not zero, so it can divide
