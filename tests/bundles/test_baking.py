"""Facts that fit the weights; no file is read but the bundles' source."""

import json

import pytest

from lora_ext import ChannelLoRAUNETR
from lora_ext.bundles import generator
from lora_ext.bundles.contents import baked_facts
from lora_ext.pretraining import VolumeAutoEncoder

SIZES = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_layers": 4, "num_heads": 2}


@pytest.fixture
def network():
    """What the record of a two-channel, three-region LoRA network says of its settings."""
    names = ("FLAIR", "t1gd")
    return as_settings(ChannelLoRAUNETR(2, 3, (32, 32, 16), lora_rank=8, modalities=names, **SIZES))


def as_settings(network):
    names = {"img_size": "roi_size"}
    return {names.get(k, k): v for k, v in network.config.items() if k != "modality_dropout"}


def metadata(facts):
    return json.loads(generator.render_bundle(facts)["configs/metadata.json"])


def test_without_weights_and_knobs_only_the_docs_differ():
    ours = generator.render_bundle(baked_facts("brats_lora32", None, {}))
    plain = generator.render_bundle(generator.facts_of("brats_lora32"))
    assert {path for path in plain if ours[path] != plain[path]} == {"docs/README.md"}
    assert "--config_file configs/train.json" in ours["docs/README.md"]
    assert "bundles/brats_lora32" not in ours["docs/README.md"]


def test_sizes_of_the_weights_are_in_configs_and_metadata(network):
    facts = baked_facts("brats_lora32", network, {})
    files = generator.render_bundle(facts)
    train, infer = (json.loads(files[f"configs/{n}.json"]) for n in ("train", "inference"))
    for config in (train | train["encoder_sizes"]["default"], infer["trained"]["default"]):
        assert config["modalities"] == ["FLAIR", "t1gd"]
        assert config["roi_size"] == [32, 32, 16]
        assert {key: config[key] for key in SIZES} == SIZES
        assert config["lora_rank"] == 8
    stated = metadata(facts)["network_data_format"]
    assert stated["inputs"]["image"]["num_channels"] == 2
    assert stated["inputs"]["image"]["spatial_shape"] == [32, 32, 16]
    assert stated["inputs"]["image"]["channel_def"] == {"0": "FLAIR", "1": "t1gd"}
    assert stated["outputs"]["pred"]["num_channels"] == 3


def test_texts_say_what_is_baked_in(network):
    facts = baked_facts("brats_lora32", network, {"spacing": [2.0, 2.0, 2.0]})
    said = metadata(facts)
    assert "rank 8" in said["description"]
    assert "2-channel MR" in said["task"]
    assert said["image_classes"].startswith("FLAIR, t1gd at 2x2x2 mm")
    assert "TC = {2, 3}" in said["pred_classes"]


def test_sizes_of_an_auto_encoder_are_baked_in_too():
    network = VolumeAutoEncoder((32, 32, 16), decoder_hidden_size=24, decoder_num_heads=2)
    stated = metadata(baked_facts("mae_pretrain", as_settings(network), {}))["network_data_format"]
    assert stated["inputs"]["image"]["spatial_shape"] == [32, 32, 16]
    assert stated["outputs"]["pred"]["spatial_shape"] == [2, 2, 1]


def test_whole_number_in_the_record_is_a_float_where_the_base_has_one(network):
    facts = baked_facts("brats_lora32", network | {"lora_alpha": 4}, {})
    assert repr(facts["lora_alpha"]) == "4.0"


def test_what_was_measured_is_said_of_the_plain_bundle_alone(network, monkeypatch):
    measured = {"brats_lora32": {"eval_metrics": {"pooled_dice": 0.5}, "memory": "Little."}}
    read = generator._read_json
    monkeypatch.setattr(
        generator, "_read_json", lambda p: measured if p.name == "measured.json" else read(p)
    )
    plain = baked_facts("brats_lora32", None, {})
    assert metadata(plain)["eval_metrics"] == {"pooled_dice": 0.5}
    assert "| pooled_dice | 0.5 |" in generator.render_bundle(plain)["docs/README.md"]
    for facts in (
        baked_facts("brats_lora32", network, {}),
        baked_facts("brats_lora32", None, {"spacing": [2.0, 2.0, 2.0]}),
    ):
        assert metadata(facts)["eval_metrics"] == {}
        assert "Little." not in generator.render_bundle(facts)["docs/README.md"]
    given = baked_facts("brats_lora32", network, {"eval_metrics": {"pooled_dice": 0.7}})
    assert metadata(given)["eval_metrics"] == {"pooled_dice": 0.7}


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({}, {"epoch": 3}, "settings: unknown key 'epoch'"),
        ({}, {"spacing": 2.0}, "--spacing: expected a list, three numbers above 0, mm; got 2.0"),
        ({}, {"num_channels": 2}, "num_channels: follows from other settings"),
        (
            {},
            {"roi_size": [64, 64, 16]},
            r"--roi_size \[64, 64, 16\] contradicts the model's record",
        ),
        ({}, {"regions": {"WT": [1]}}, r"out_channels 3, but the bundle has 1 regions \['WT'\]"),
        (
            {"out_channels": 2},
            {},
            "out_channels 2, but the bundle has 3 regions.*pass the --regions",
        ),
        (
            {"out_channels": 1},
            {"regions": {"liver": [7]}},
            r"labels \['7'\] that are not among .*pass the --labels of your data",
        ),
        ({"modalities": ["a"]}, {}, "in_channels 2, but the bundle has 1 modalities"),
        ({"regime": "frozen"}, {}, "are of regime 'frozen', but brats_lora32 is for regime 'lora'"),
    ],
)
def test_what_does_not_fit_is_refused(network, change, settings, message):
    with pytest.raises(ValueError, match=message):
        baked_facts("brats_lora32", network | change, settings)
