import logging

import pytest
import torch

from lora_ext.networks.regimes import REGIMES
from lora_ext.weights import (
    check_given_sizes,
    encoder_sizes,
    network_for_encoder,
    save_encoder,
    save_model,
    start_encoder,
)
from lora_ext.weights.adapter import encoder_fingerprint
from lora_ext.weights.start import chosen_encoder

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


SIZES = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 4, "qkv_bias": False,
         "num_prefix_tokens": 0}  # fmt: skip
DEFAULT = {"hidden_size": 768, "mlp_dim": 3072, "num_layers": 12, "num_heads": 12,
           "qkv_bias": False, "num_prefix_tokens": 0, "norm_eps": 1e-5}  # fmt: skip


@pytest.mark.parametrize("regime", PRETRAINED)
def test_network_for_a_file_has_the_files_sizes_and_weights(placed, vit, holds, regime, caplog):
    caplog.set_level(logging.INFO)
    path = placed / "encoder.safetensors"
    network = network_for_encoder(path, 2, 3, (32, 32, 16), regime=regime, feature_size=4)
    assert holds(network, vit)
    assert network.config["num_heads"] == 4  # as the file's metadata says
    assert network.config["encoder"].startswith("encoder.safetensors (sha256 ")
    assert "not said by the file: LayerNorm eps 1e-05" in caplog.text
    assert "attention heads" not in caplog.text


def test_number_of_heads_that_no_file_says_is_told(vit, build_vit, torch_file, caplog):
    caplog.set_level(logging.INFO)
    network = network_for_encoder(
        torch_file(build_vit(hidden_size=128).state_dict()), 1, 1, (32, 32, 16), regime="frozen"
    )
    assert network.config["num_heads"] == 2
    assert "not said by the file: 2 attention heads, LayerNorm eps 1e-05" in caplog.text
    with pytest.raises(ValueError, match=r"hidden size 48, no multiple of 64.*give num_heads"):
        network_for_encoder(
            torch_file(vit.state_dict()), 1, 1, (32, 32, 16), regime="frozen", feature_size=4
        )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"hidden_size": 96}, r"hidden size 48; this network has 96 .*; leave these out"),
        ({"num_layers": 3, "mlp_dim": 9}, r"depth 4, MLP width 96; this network has 3 .*, 9 "),
        ({"num_heads": 6}, "attention heads 4; this network has 6"),
        ({"qkv_bias": True}, "qkv bias False; this network has True"),
        ({"regime": "baseline"}, r"'baseline' starts from a random encoder, but pretrained="),
    ],
)
def test_network_for_a_file_takes_no_other_sizes(placed, given, sentence):
    arguments = {"regime": "lora"} | given
    with pytest.raises(ValueError, match=sentence) as error:
        network_for_encoder(placed / "encoder.safetensors", 2, 3, (32, 32, 16), **arguments)
    assert "\n" not in str(error.value)


def test_sizes_are_the_files_or_the_default_ones(placed):
    path = str(placed / "encoder.safetensors")
    found = encoder_sizes("lora", DEFAULT, None, placed)
    said = SIZES | {"num_heads": 4}
    assert found == {**DEFAULT, **said, "file": path, "said": said}
    assert encoder_sizes("lora", DEFAULT, path) == found
    for regime, pretrained in (("baseline", None), ("baseline", "none"), ("lora", "none")):
        sizes = encoder_sizes(regime, DEFAULT, pretrained, placed)
        assert sizes == {**DEFAULT, "file": None, "said": {}}
    with pytest.raises(ValueError, match="'baseline' starts from a random encoder"):
        encoder_sizes("baseline", DEFAULT, path)


def test_sizes_leave_the_heads_open_that_nothing_tells(vit, torch_file):
    found = encoder_sizes("lora", DEFAULT, str(torch_file(vit.state_dict())))
    assert found["num_heads"] is None
    assert found["norm_eps"] == 1e-5
    with pytest.raises(ValueError, match=r"no word about the number of attention heads.*--num_h"):
        check_given_sizes(found["file"], found["said"], {"num_heads": None}, flags=True)
    check_given_sizes(found["file"], found["said"], {"num_heads": 4}, flags=True)


def test_record_of_one_of_our_models_says_what_its_tensors_do_not(small_network, tmp_path):
    sizes = {"qkv_bias": True, "num_prefix_tokens": 2, "norm_eps": 1e-6, "num_heads": 3}
    source = small_network(regime="finetune", **sizes)
    save_model(source, tmp_path / "model.pt")
    network = network_for_encoder(
        tmp_path / "model.pt", 2, 3, (32, 32, 16), regime="frozen", feature_size=4
    )
    assert {k: network.config[k] for k in sizes} == sizes
    theirs = source.encoder.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in network.encoder.state_dict().items())


def test_path_that_a_config_would_not_tell_apart_is_refused(small_network):
    with pytest.raises(ValueError, match=r"--pretrained: found a::b.pt, expected a path without #"):
        start_encoder(small_network(), "a::b.pt")


@pytest.mark.parametrize("mark", ["#", "::"])  # MONAI makes the second of the first
def test_address_is_named_as_it_was_given(mark):
    address = f"https://host/vit.pt{mark}sha256={'0' * 64}"
    assert chosen_encoder("lora", address) == f"https://host/vit.pt#sha256={'0' * 64}"
