"""MONAI's own networks, small, and files of their weights."""

import warnings

import pytest
import torch
from monai.networks.nets import MaskedAutoEncoderViT, ViT

SIZES = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 4, "num_heads": 4}
IMAGE = {"in_channels": 1, "img_size": (32, 32, 16), "patch_size": 16}


@pytest.fixture
def build_vit():
    """A function that builds MONAI's ViT, of the small network's sizes unless told otherwise."""

    def build(**sizes):
        torch.manual_seed(5)
        return ViT(**{**IMAGE, **SIZES, **sizes})

    return build


@pytest.fixture
def vit(build_vit):
    return build_vit()


@pytest.fixture
def build_autoencoder():
    """A function that builds MONAI's masked auto-encoder with a final norm unlike its start."""

    def build(**sizes):
        torch.manual_seed(6)
        decoder = {"decoder_hidden_size": 48, "decoder_num_heads": 4, "decoder_num_layers": 2}
        with warnings.catch_warnings():
            # MONAI's sincos position embedding calls torch.meshgrid without indexing
            warnings.filterwarnings("ignore", message="torch.meshgrid")
            autoencoder = MaskedAutoEncoderViT(**{**IMAGE, **SIZES, **decoder, **sizes})
        torch.nn.init.normal_(autoencoder.blocks[-1].weight)
        return autoencoder

    return build


@pytest.fixture
def torch_file(tmp_path):
    """A function that writes a torch file and returns its path."""

    def write(content, name="vit.pt"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def holds():
    """A function that tells whether a network's encoder holds exactly a ViT's weights."""

    def compare(network, vit):
        own, theirs = network.encoder.state_dict(), vit.state_dict()
        return all(torch.equal(v, theirs[k]) for k, v in own.items() if "lora_" not in k)

    return compare
