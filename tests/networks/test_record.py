import copy

import pytest
import torch

from lora_ext.networks.config import misfit
from lora_ext.pretraining import VolumeAutoEncoder
from lora_ext.weights import save_model

NAMES = ["FLAIR", "t1gd"]


@pytest.fixture
def state(tmp_path, small_network):
    """What anybody reads from a saved ``model.pt``."""
    save_model(small_network(modalities=NAMES, lora_alpha=16.0), tmp_path / "model.pt")
    return torch.load(tmp_path / "model.pt", weights_only=True)


@pytest.mark.parametrize(
    ("sizes", "flag"),
    [
        ({}, '--lora_alpha "16.0"'),
        ({"lora_alpha": 16.0, "num_heads": 6}, '--num_heads "4"'),
        ({"lora_alpha": 16.0, "lora_scaling": "classical"}, '--lora_scaling "rank_stabilised"'),
        (
            {"lora_alpha": 16.0, "modalities": NAMES[::-1]},
            r"--modalities \"\['FLAIR', 't1gd'\]\"",
        ),
    ],
)
def test_weights_of_the_same_shapes_but_other_settings_do_not_load(
    state, small_network, sizes, flag
):
    network = small_network(**{"modalities": NAMES, **sizes})
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=flag):
            network.load_state_dict(state, strict=strict)


def test_weights_load_into_the_network_of_their_record_and_into_its_copies(state, small_network):
    network = small_network(modalities=NAMES, lora_alpha=16.0, seed=3, modality_dropout=0.5)
    for module in (network, copy.deepcopy(network)):
        module.load_state_dict(state)
        assert torch.equal(module.state_dict()["decoder.out.conv.conv.bias"],
                           state["decoder.out.conv.conv.bias"])  # fmt: skip


def test_network_without_names_of_channels_takes_any(state, small_network):
    small_network(lora_alpha=16.0).load_state_dict(state)


def test_weights_without_a_record_load_as_before(state, small_network):
    small_network(modalities=NAMES).load_state_dict(dict(state))


def test_state_of_a_running_network_carries_no_record(small_network):
    small_network(lora_alpha=2.0).load_state_dict(small_network().state_dict())


def test_auto_encoder_of_another_number_of_heads_is_refused(tmp_path):
    sizes = {
        "hidden_size": 24, "mlp_dim": 32, "num_layers": 2, "decoder_hidden_size": 12,
        "decoder_mlp_dim": 16, "decoder_num_layers": 1, "decoder_num_heads": 2,
    }  # fmt: skip
    save_model(VolumeAutoEncoder((32, 32, 16), num_heads=2, **sizes), tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    with pytest.raises(RuntimeError, match='--num_heads "2"'):
        VolumeAutoEncoder((32, 32, 16), num_heads=4, **sizes).load_state_dict(state)


def test_rank_is_free_where_there_are_no_adapters():
    made = {"regime": "frozen", "lora_rank": 32, "num_heads": 4}
    assert misfit(made, {"regime": "baseline", "lora_rank": 16, "num_heads": 4}) is None
    assert misfit(made, {"regime": "baseline", "lora_rank": 16, "num_heads": 6}) is not None
