"""Shared fixtures: small networks, the repository's root, the real patients if they are there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "feature_size": 8,
    "hidden_size": 48,
    "mlp_dim": 96,
    "num_layers": 4,
    "num_heads": 4,
    "lora_rank": 4,
}


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def small_network():
    """A function that builds a small network: 2 channels, 3 regions, 32 x 32 x 16 voxels."""
    from lora_ext import ChannelLoRAUNETR

    def build(in_channels=2, out_channels=3, img_size=(32, 32, 16), seed=0, **sizes):
        torch.manual_seed(seed)
        return ChannelLoRAUNETR(in_channels, out_channels, img_size, **{**SMALL, **sizes})

    return build


@pytest.fixture
def wake_adapters():
    """A function that gives every adapter a random up-projection, so that it has an effect."""

    def wake(network, seed=1):
        generator = torch.Generator().manual_seed(seed)
        for module in network.modules():
            if hasattr(module, "adapter_parameters"):
                with torch.no_grad():
                    module.lora_B.normal_(std=0.2, generator=generator)
        return network

    return wake


@pytest.fixture
def real_data() -> Path:
    """The folder of the four real BraTS 2013 patients; the test is skipped where it is absent."""
    folder = Path(os.environ.get("LORA_EXT_REAL_DATA", ROOT.parent / "shared" / "data"))
    task = folder / "Task01_BRATS2013" if folder.name != "Task01_BRATS2013" else folder
    if not (task / "dataset.json").is_file():
        pytest.skip(f"real patients not found in {folder}; set LORA_EXT_REAL_DATA")
    return task
