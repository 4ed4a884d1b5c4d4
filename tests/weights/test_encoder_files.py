import json

import pytest
import safetensors
import safetensors.torch
import torch

from lora_ext import load_encoder
from lora_ext.networks.encoder import ChannelEncoder
from lora_ext.weights import save_encoder

MADE_FOR = {"img_size": (32, 32, 16), "num_heads": 4}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "models" / "encoder.safetensors"


@pytest.mark.parametrize("source", ["autoencoder", "vit", "wrapped"])
def test_file_has_exactly_the_shared_encoders_keys_and_shapes(path, vit, build_autoencoder, source):
    autoencoder = build_autoencoder()
    states = {"autoencoder": autoencoder.state_dict(), "vit": vit.state_dict()}
    states["wrapped"] = {f"module.{k}": v for k, v in states["autoencoder"].items()}
    save_encoder(states[source], path, **MADE_FOR)
    stored = safetensors.torch.load_file(path)
    encoder = ChannelEncoder(
        ("a",), (32, 32, 16), hidden_size=48, mlp_dim=96, num_layers=4, num_heads=4
    )
    assert {k: v.shape for k, v in stored.items()} == {
        k: v.shape for k, v in encoder.state_dict().items()
    }


def test_masked_autoencoders_final_norm_is_the_encoders(path, build_autoencoder):
    autoencoder = build_autoencoder()
    save_encoder(autoencoder.state_dict(), path, **MADE_FOR)
    stored = safetensors.torch.load_file(path)
    assert torch.equal(stored["norm.weight"], autoencoder.blocks[4].weight)


def test_file_says_what_its_tensors_do_not(path, vit):
    save_encoder(vit.state_dict(), path, **MADE_FOR, epoch=7, masking_ratio=0.75, data="BraTS")
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata.pop("img_size")) == [32, 32, 16]
    assert metadata == {
        "format": "lora_ext encoder 1",
        "num_heads": "4",
        "epoch": "7",
        "masking_ratio": "0.75",
        "data": "BraTS",
    }


def test_tensors_that_are_not_contiguous_are_written_too(path, vit):
    state = {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in vit.state_dict().items()}
    save_encoder(state, path, **MADE_FOR)
    stored = safetensors.torch.load_file(path)
    assert all(torch.equal(v, state[k]) for k, v in stored.items())


@pytest.mark.parametrize(
    ("sizes", "made_for", "message"),
    [
        ({"in_channels": 4}, {}, "input channels 4"),
        ({"patch_size": 8}, {}, r"patch size \[8, 8, 8\]"),
        ({}, {"num_heads": 5}, "num_heads=5"),
        (
            {},
            {"img_size": (32, 32, 32)},
            r"position_embeddings' has shape \[1, 4, 48\].*\[1, 8, 48",
        ),
        ({}, {"img_size": (32, 30, 16)}, r"multiples of 16 voxels; got \[32, 30, 16\]"),
    ],
)
def test_what_no_network_could_load_is_not_written(path, build_vit, sizes, made_for, message):
    state = build_vit(**sizes).state_dict()
    with pytest.raises(ValueError, match=message):
        save_encoder(state, path, **{**MADE_FOR, **made_for})
    assert not path.exists()


def test_vit_that_lacks_a_weight_is_not_written(path, vit):
    state = vit.state_dict()
    del state["blocks.0.mlp.linear1.weight"]
    with pytest.raises(ValueError, match=r"encoder to save: lacks 1 .*linear1"):
        save_encoder(state, path, **MADE_FOR)


def test_another_number_of_heads_is_refused_though_the_tensors_fit(path, small_network, vit):
    save_encoder(vit.state_dict(), path, **MADE_FOR)
    with pytest.raises(ValueError, match=r"attention heads 4; this network has 6 \(--num_heads\)"):
        load_encoder(small_network(num_heads=6), path)


def test_files_image_size_is_the_source_grid(path, small_network, build_vit):
    # four patches, as many as the network's, and in another order
    save_encoder(
        build_vit(img_size=(64, 16, 16)).state_dict(), path, img_size=(64, 16, 16), num_heads=4
    )
    assert load_encoder(small_network(), path).resampled == ([4, 1, 1], [2, 2, 1])


def test_told_image_size_wins_over_the_files(path, small_network, vit):
    save_encoder(vit.state_dict(), path, **MADE_FOR)
    report = load_encoder(small_network(), path, source_img_size=(16, 64, 16))
    assert report.resampled == ([1, 4, 1], [2, 2, 1])


def test_safetensors_of_anyone_else_need_no_metadata(tmp_path, small_network, vit, holds):
    network = small_network()
    safetensors.torch.save_file(vit.state_dict(), tmp_path / "v.safetensors", {"num_heads": "99"})
    load_encoder(network, tmp_path / "v.safetensors")
    assert holds(network, vit)


@pytest.mark.parametrize(
    ("fact", "value", "expected"),
    [
        ("num_heads", "four", "a whole number"),
        ("norm_eps", "small", "a number such as 1e-05"),
        ("img_size", "32", "three whole numbers in brackets"),
    ],
)
def test_metadata_that_says_nonsense_is_refused(path, vit, small_network, fact, value, expected):
    save_encoder(vit.state_dict(), path, **MADE_FOR)
    metadata = {"format": "lora_ext encoder 1", fact: value}
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata)
    with pytest.raises(
        ValueError, match=f"found {fact} '{value}' in its metadata; expected {expected}"
    ):
        load_encoder(small_network(), path)


def test_qkv_bias_is_written_and_read(path, build_vit, small_network, holds):
    vit = build_vit(qkv_bias=True)
    save_encoder(vit.state_dict(), path, **MADE_FOR)
    network = small_network(qkv_bias=True)
    load_encoder(network, path)
    assert holds(network, vit)
