import logging

import pytest
import torch

from lora_ext.networks.regimes import REGIMES
from lora_ext.weights import save_encoder, start_encoder
from lora_ext.weights.adapter import encoder_fingerprint

PRETRAINED = [name for name, regime in REGIMES.items() if regime.pretrained]


@pytest.mark.parametrize("regime", PRETRAINED)
def test_without_an_encoder_it_starts_at_random_says_so_in_two_lines_and_records_it(
    small_network, caplog, regime, tmp_path
):
    network = small_network(regime=regime)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    start_encoder(network, None, tmp_path, tmp_path / "bundles" / "brats_lora32")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    first, second = record.getMessage().splitlines()
    assert f"regime '{regime}' starts from RANDOM weights" in first
    assert "--pretrained FILE" in second
    assert "mae_pretrain" in second
    assert network.config["encoder"] == "random"
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("none", ["none", "None", "NONE"])
@pytest.mark.parametrize("regime", PRETRAINED)
def test_random_weights_on_purpose_are_warned_of(small_network, caplog, regime, none):
    start_encoder(small_network(regime=regime), none)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"regime '{regime}' starts from random weights" in record.getMessage()


@pytest.mark.parametrize("pretrained", [None, "none"])
def test_baseline_starts_at_random_in_silence(small_network, caplog, pretrained):
    caplog.set_level(logging.DEBUG)
    start_encoder(small_network(regime="baseline"), pretrained)
    assert not caplog.records


def test_baseline_refuses_a_pretrained_encoder(small_network):
    with pytest.raises(ValueError, match=r"baseline.*vit\.pt.*finetune"):
        start_encoder(small_network(regime="baseline"), "vit.pt")


@pytest.fixture
def placed(vit, tmp_path):
    """The folder of models with an encoder in it, as pre-training leaves it."""
    path = tmp_path / "encoder.safetensors"
    save_encoder(vit.state_dict(), path, img_size=(32, 32, 16), num_heads=4)
    return tmp_path


@pytest.mark.parametrize("regime", PRETRAINED)
def test_encoder_in_the_folder_of_models_is_taken_where_none_is_given(
    small_network, vit, placed, caplog, holds, regime
):
    caplog.set_level(logging.INFO)
    network = small_network(regime=regime)
    start_encoder(network, None, placed)
    assert "encoder.safetensors: " in caplog.text
    assert holds(network, vit)


@pytest.mark.parametrize("place", ["brats_lora32/models", "mae_pretrain/models"])
def test_encoder_of_the_bundle_or_of_its_neighbour_is_taken_too(
    small_network, vit, placed, tmp_path, holds, place
):
    folder = tmp_path / "bundles" / place
    folder.mkdir(parents=True)
    (placed / "encoder.safetensors").rename(folder / "encoder.safetensors")
    network = small_network()
    start_encoder(network, None, tmp_path, tmp_path / "bundles" / "brats_lora32")
    assert holds(network, vit)


def test_encoder_that_was_found_and_does_not_fit_says_how_to_do_without(small_network, placed):
    with pytest.raises(ValueError, match=r"hidden size 48.*--pretrained none starts without it"):
        start_encoder(small_network(hidden_size=24), None, placed)


def test_record_names_the_encoder_and_its_fingerprint(small_network, placed):
    network = small_network()
    start_encoder(network, None, placed)
    name, _, fingerprint = network.config["encoder"].partition(" ")
    assert name == "encoder.safetensors"
    assert fingerprint == f"(sha256 {encoder_fingerprint(network)[:12]})"


def test_encoder_that_is_given_goes_before_the_one_in_the_folder_of_models(
    small_network, build_vit, vit, placed, torch_file, holds
):
    other = build_vit()
    torch.nn.init.ones_(other.patch_embedding.position_embeddings)
    network = small_network()
    start_encoder(network, str(torch_file(other.state_dict())), placed)
    assert holds(network, other)
    assert not holds(network, vit)


def test_baseline_and_random_weights_on_purpose_leave_the_placed_encoder_alone(
    small_network, vit, placed, holds
):
    for regime, pretrained in (("baseline", None), ("lora", "none")):
        network = small_network(regime=regime)
        start_encoder(network, pretrained, placed)
        assert not holds(network, vit)


def test_loaded_encoder_is_said(small_network, vit, torch_file, caplog, holds):
    caplog.set_level(logging.INFO)
    network = small_network()
    start_encoder(network, str(torch_file(vit.state_dict())))
    counts = "vit.pt: 49 keys loaded, 8 skipped (blocks.*.norm_cross_attn), 0 missing"
    assert counts in caplog.text
    assert holds(network, vit)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("empty", ["", " "])
def test_empty_path_is_refused(small_network, placed, regime, empty):
    with pytest.raises(ValueError, match="--pretrained: found an empty path; expected a file"):
        start_encoder(small_network(regime=regime), empty, placed)


@pytest.mark.parametrize(
    ("path", "found"), [(".", "found a folder"), ("nowhere/vit.pt", "no such weights file")]
)
def test_path_that_is_no_file_is_refused(small_network, placed, monkeypatch, path, found):
    monkeypatch.chdir(placed)
    with pytest.raises(ValueError, match=f"^{path}: {found}"):
        start_encoder(small_network(), path, placed)


def test_path_may_begin_with_the_home_folder(small_network, vit, placed, monkeypatch, holds):
    monkeypatch.setenv("HOME", str(placed))
    network = small_network()
    start_encoder(network, "~/encoder.safetensors")
    assert holds(network, vit)
