import json

import pytest
import torch

from lora_ext import build_network, load_model, network_from_record
from lora_ext.pretraining import VolumeAutoEncoder
from lora_ext.weights import save_model


def test_saved_model_loads_strictly_with_weights_only_and_is_bit_equal(
    tmp_path, small_network, wake_adapters
):
    network = wake_adapters(small_network()).eval()
    save_model(network, tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(isinstance(v, torch.Tensor) for v in state.values())
    other = small_network(seed=9).eval()
    other.load_state_dict(state, strict=True)
    again = small_network(seed=8).eval()
    load_model(again, tmp_path / "model.pt")
    x = torch.randn(1, 2, 32, 32, 16)
    assert torch.equal(network(x), other(x))
    assert torch.equal(network(x), again(x))


@pytest.mark.parametrize(
    ("sizes", "flag"),
    [
        ({"num_heads": 6}, '--num_heads "4"'),
        ({"feature_size": 4}, '--feature_size "8"'),
        ({"lora_alpha": 2.0}, '--lora_alpha "8.0"'),
        ({"lora_rank": 2}, '--lora_rank "4"'),
        ({"img_size": (32, 16, 32)}, r'--roi_size "\[32, 32, 16\]"'),
        ({"modalities": ["b", "a"]}, r"--modalities \"\['a', 'b'\]\""),
    ],
)
def test_model_of_other_settings_is_refused_with_the_flags_to_pass(
    tmp_path, small_network, sizes, flag
):
    save_model(small_network(modalities=["a", "b"]), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=flag):
        load_model(small_network(**{"modalities": ["a", "b"], **sizes}), tmp_path / "model.pt")


def test_rank_is_free_where_there_are_no_adapters(tmp_path, small_network):
    save_model(small_network(regime="frozen"), tmp_path / "model.pt")
    load_model(small_network(regime="baseline", lora_rank=2, seed=5), tmp_path / "model.pt")


def test_lost_record_is_in_the_file_itself(tmp_path, small_network):
    save_model(small_network(), tmp_path / "model.pt")
    (tmp_path / "network.json").unlink()
    with pytest.raises(ValueError, match='pass --num_heads "4"'):
        load_model(small_network(num_heads=6), tmp_path / "model.pt")


def test_misfit_without_any_record_names_the_first_shape(tmp_path, small_network):
    torch.save(dict(small_network().state_dict()), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"'decoder.*' has shape \[8, 2.*network needs \[4, 2"):
        load_model(small_network(feature_size=4), tmp_path / "model.pt")


@pytest.mark.parametrize("record", [True, False])
def test_model_of_another_kind_of_network_is_refused_in_a_short_sentence(
    tmp_path, small_network, record
):
    sizes = {
        "hidden_size": 24, "mlp_dim": 32, "num_layers": 2, "num_heads": 2, "decoder_num_heads": 2,
        "decoder_hidden_size": 12, "decoder_mlp_dim": 16, "decoder_num_layers": 1,
    }  # fmt: skip
    other = VolumeAutoEncoder((32, 32, 16), **sizes)
    save_model(other, tmp_path / "model.pt")
    if not record:
        torch.save(dict(other.state_dict()), tmp_path / "model.pt")
        (tmp_path / "network.json").unlink()
    with pytest.raises(ValueError, match=r"and \d+ more.*; give the model of this bundle") as error:
        load_model(small_network(), tmp_path / "model.pt")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_missing_model_says_to_train_first(tmp_path, small_network):
    with pytest.raises(ValueError, match="run 'training' first"):
        load_model(small_network(), tmp_path / "model.pt")


def test_record_is_the_constructors_arguments(tmp_path, small_network):
    network = small_network()
    save_model(network, tmp_path / "model.pt")
    record = json.loads((tmp_path / "network.json").read_text(encoding="utf-8"))
    rebuilt = build_network(**record)
    assert rebuilt.state_dict().keys() == network.state_dict().keys()


def test_record_is_what_the_network_can_be_built_from_again(small_network, tmp_path):
    network = small_network()
    network.config["encoder"] = "random"
    save_model(network, tmp_path / "model.pt")
    record = json.loads((tmp_path / "network.json").read_text(encoding="utf-8"))
    again = network_from_record(record)
    load_model(again, tmp_path / "model.pt")
    assert again.config == network.config == record
