"""From a masked auto-encoder, through files alone, to the same segmentation network twice."""

import pytest
import torch

from lora_ext import load_adapter, load_encoder, save_adapter
from lora_ext.weights import save_encoder


@pytest.fixture
def image():
    return torch.randn(1, 2, 32, 32, 16, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", ["encoder file", "auto-encoder's state dict"])
@pytest.mark.parametrize("size", [(32, 32, 16), (48, 48, 48)], ids=["same grid", "other grid"])
def test_encoder_and_adapter_file_rebuild_a_bit_equal_network(
    tmp_path, small_network, wake_adapters, build_autoencoder, torch_file, image, kind, size
):
    autoencoder = build_autoencoder(img_size=size, pos_embed_type="sincos")
    if kind == "encoder file":
        encoder = tmp_path / "encoder.safetensors"
        save_encoder(autoencoder.state_dict(), encoder, img_size=size, num_heads=4)
    else:
        encoder = torch_file(autoencoder.state_dict(), "model.pt")
    trained = small_network(seed=1).eval()
    load_encoder(trained, encoder)
    save_adapter(wake_adapters(trained), tmp_path / "adapter.safetensors")

    fresh = small_network(seed=9).eval()
    assert not torch.equal(fresh(image), trained(image))
    load_encoder(fresh, encoder)
    load_adapter(fresh, tmp_path / "adapter.safetensors")
    assert torch.equal(fresh(image), trained(image))


def test_both_ways_from_one_autoencoder_give_the_same_encoder(
    tmp_path, small_network, build_autoencoder, torch_file
):
    autoencoder = build_autoencoder()
    encoder = tmp_path / "encoder.safetensors"
    save_encoder(autoencoder.state_dict(), encoder, img_size=(32, 32, 16), num_heads=4)
    one, other = small_network(seed=1), small_network(seed=9)
    load_encoder(one, encoder)
    load_encoder(other, torch_file(autoencoder.state_dict()))
    weights = one.encoder.state_dict()
    base = [k for k in weights if "lora" not in k]
    assert all(torch.equal(weights[k], other.encoder.state_dict()[k]) for k in base)


def test_encoder_in_the_network_computes_what_the_autoencoders_did(
    tmp_path, small_network, build_autoencoder, image
):
    autoencoder = build_autoencoder().eval()
    save_encoder(
        autoencoder.state_dict(), tmp_path / "e.safetensors", img_size=(32, 32, 16), num_heads=4
    )
    network = small_network().eval()
    load_encoder(network, tmp_path / "e.safetensors")
    with torch.no_grad():
        theirs = autoencoder.blocks(autoencoder.patch_embedding(image[:, :1]))
        ours = network.encoder(image)[-1][:, 0]
    assert torch.allclose(ours, theirs, atol=1e-5)
