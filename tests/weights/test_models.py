import json

import pytest
import torch

from lora_ext import ChannelLoRAUNETR, load_model
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


def test_misfit_without_a_record_is_refused_in_one_line(tmp_path, small_network):
    save_model(small_network(), tmp_path / "model.pt")
    (tmp_path / "network.json").unlink()
    with pytest.raises(ValueError, match="does not fit this network") as caught:
        load_model(small_network(feature_size=4), tmp_path / "model.pt")
    assert "\n" not in str(caught.value)


def test_missing_model_says_to_train_first(tmp_path, small_network):
    with pytest.raises(ValueError, match="run 'training' first"):
        load_model(small_network(), tmp_path / "model.pt")


def test_record_is_the_constructors_arguments(tmp_path, small_network):
    network = small_network()
    save_model(network, tmp_path / "model.pt")
    record = json.loads((tmp_path / "network.json").read_text(encoding="utf-8"))
    rebuilt = type(network)(**record)
    assert rebuilt.state_dict().keys() == network.state_dict().keys()


def test_record_is_what_the_network_can_be_built_from_again(small_network, tmp_path):
    network = small_network()
    network.config["encoder"] = "random"
    save_model(network, tmp_path / "model.pt")
    record = json.loads((tmp_path / "network.json").read_text(encoding="utf-8"))
    again = ChannelLoRAUNETR(**record)
    load_model(again, tmp_path / "model.pt")
    assert again.config == network.config == record
