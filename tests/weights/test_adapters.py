import pytest
import safetensors.torch
import torch

from lora_ext import load_adapter, load_encoder, save_adapter
from lora_ext.networks.regimes import parameter_parts
from lora_ext.weights.adapter import encoder_fingerprint


@pytest.fixture
def image():
    return torch.randn(1, 2, 32, 32, 16, generator=torch.Generator().manual_seed(3))


def encoder_file(network, path):
    base = {id(p) for p in parameter_parts(network)["encoder"]}
    state = {k: p.detach() for k, p in network.encoder.named_parameters() if id(p) in base}
    safetensors.torch.save_file(state, path)
    return path


@pytest.mark.parametrize("regime", ["lora", "frozen"])
def test_encoder_and_adapter_file_give_a_bit_equal_network(
    tmp_path, small_network, wake_adapters, image, regime
):
    trained = wake_adapters(small_network(regime=regime)).eval()
    save_adapter(trained, tmp_path / "adapter.safetensors")
    other = small_network(regime=regime, seed=9).eval()
    assert not torch.equal(other(image), trained(image))
    load_encoder(other, encoder_file(trained, tmp_path / "vit.safetensors"))
    load_adapter(other, tmp_path / "adapter.safetensors")
    assert torch.equal(other(image), trained(image))


def test_adapter_file_holds_no_encoder_weight(tmp_path, small_network):
    network = small_network()
    save_adapter(network, tmp_path / "a.safetensors")
    stored = safetensors.torch.load_file(tmp_path / "a.safetensors")
    parts = parameter_parts(network)
    rest = sum(p.numel() for part in ("adapters", "fusion", "decoder") for p in parts[part])
    assert sum(t.numel() for t in stored.values()) == rest


@pytest.mark.parametrize("regime", ["baseline", "finetune"])
def test_regimes_that_train_the_encoder_are_refused(tmp_path, small_network, regime):
    with pytest.raises(ValueError, match=f"{regime}.*trains the encoder.*'frozen', 'lora'"):
        save_adapter(small_network(regime=regime), tmp_path / "a.safetensors")


def test_adapter_of_another_encoder_is_refused(tmp_path, small_network):
    save_adapter(small_network(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="another encoder"):
        load_adapter(small_network(seed=9), tmp_path / "a.safetensors")


def test_adapter_of_another_rank_is_refused_with_its_rank(tmp_path, small_network):
    save_adapter(small_network(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="made for a network with lora_rank 4;"):
        load_adapter(small_network(lora_rank=2), tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lora_alpha", 16.0),
        ("lora_scaling", "classical"),
        ("num_heads", 2),
        ("modalities", ["b", "a"]),
    ],
)
def test_setting_that_no_tensor_shows_is_compared_all_the_same(
    tmp_path, small_network, setting, value
):
    save_adapter(small_network(modalities=["a", "b"]), tmp_path / "a.safetensors")
    other = small_network(**{"modalities": ["a", "b"], setting: value})
    with pytest.raises(ValueError, match=f"made for a network with {setting} "):
        load_adapter(other, tmp_path / "a.safetensors")


def test_frozen_network_has_no_adapters_whose_scale_could_differ(tmp_path, small_network):
    save_adapter(small_network(regime="frozen"), tmp_path / "a.safetensors")
    load_adapter(small_network(regime="frozen", lora_alpha=16.0), tmp_path / "a.safetensors")


def test_file_that_is_no_adapter_is_refused(tmp_path, small_network):
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="not an adapter file"):
        load_adapter(small_network(), tmp_path / "a.safetensors")


def test_fingerprint_sees_the_encoder_and_not_the_adapters(small_network, wake_adapters):
    network = small_network()
    before = encoder_fingerprint(network)
    assert encoder_fingerprint(wake_adapters(network)) == before
    with torch.no_grad():
        network.encoder.blocks[0].mlp.linear2.bias[0] += 1e-3
    assert encoder_fingerprint(network) != before
