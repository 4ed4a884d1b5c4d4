"""Weights of other sizes than the bundles' own, as a training run leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_ext import ChannelLoRAUNETR, save_adapter
from lora_ext.weights.model import save_model

SIZES = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_layers": 4, "num_heads": 2}


@pytest.fixture
def weights(tmp_path, wake_adapters):
    """A function that writes the files of a small trained network; returns their folder."""

    def write(modalities=("FLAIR", "T1w", "t1gd", "T2w"), regions=3, **sizes) -> Path:
        torch.manual_seed(0)
        settings = {"regime": "lora", "lora_rank": 8, **SIZES, **sizes}
        network = ChannelLoRAUNETR(
            len(modalities), regions, (32, 32, 16), modalities=modalities, **settings
        )
        folder = tmp_path / "trained"
        save_model(wake_adapters(network), folder / "model.pt")
        save_adapter(network, folder / "adapter.safetensors")
        for left_by_training in ("last.pt", "last.ckpt"):
            (folder / left_by_training).write_bytes(b"state of an optimizer")
        return folder

    return write
