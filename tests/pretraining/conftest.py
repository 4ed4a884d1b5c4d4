"""A small auto-encoder and volumes with structure to predict."""

from __future__ import annotations

import pytest
import torch

SIZES = {
    "hidden_size": 48,
    "mlp_dim": 96,
    "num_layers": 4,
    "num_heads": 4,
    "decoder_hidden_size": 24,
    "decoder_mlp_dim": 48,
    "decoder_num_layers": 1,
    "decoder_num_heads": 2,
}


@pytest.fixture
def autoencoder():
    """A function that builds a small auto-encoder of 32 x 32 x 16 voxels (4 patches)."""
    from lora_ext.pretraining import VolumeAutoEncoder

    def build(img_size=(32, 32, 16), seed=0, **sizes):
        torch.manual_seed(seed)
        return VolumeAutoEncoder(img_size, **{**SIZES, **sizes})

    return build


@pytest.fixture
def volumes() -> torch.Tensor:
    """Two volumes (2, 1, 32, 32, 16): waves, with a patch of air in the first."""
    axes = [torch.linspace(0, 6, n) for n in (32, 32, 16)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    both = torch.stack([(x + y).sin() + z, (2 * x - z).cos()])[:, None]
    both[0, :, :16, :16] = 0
    return both
