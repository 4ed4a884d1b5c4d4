"""The command lines, read back as fire and MONAI read them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fire import parser
from monai.bundle import ConfigParser

from lora_ext.study.commands import as_word, commands, overlay
from lora_ext.study.plan import Run

KNOBS = {"epochs": 2, "roi_size": [32, 32, 16], "amp": False, "pretrained": None, "device": "cpu"}
RUN = Run("brats_lora32", "brats", "lora32", False, "brats_lora32", 3, 1, "data/brats", KNOBS)
REFERENCE = replace(RUN, row="brats_segresnet", regime="segresnet", reference=True)


def flags_of(argv):
    """The flags of a command line, as fire reads them."""
    values = [parser.DefaultParseValue(word) for word in argv[6::2]]
    return dict(zip((word.removeprefix("--") for word in argv[5::2]), values, strict=True))


@pytest.mark.parametrize("kind", ["training", "evaluating"])
def test_command_lines_are_those_of_a_user(kind):
    argv = commands(RUN, Path("bundles"), Path("R/x"))[kind]
    assert argv[:5] == ["python", "-m", "monai.bundle", "run", kind]
    flags = flags_of(argv)
    files = flags.pop("config_file")
    assert files[0] == "bundles/brats_lora32/configs/train.json"
    assert ("bundles/brats_lora32/configs/evaluate.json" in files) == (kind == "evaluating")
    assert flags == {
        "dataset_dir": "data/brats",
        "ckpt_dir": "R/x/models",
        "output_dir": "R/x/eval",
        "seed": 3,
        "fold": 1,
        **KNOBS,
    }


@pytest.mark.parametrize(
    "value", ["plain/path.pt", "a,b", "12", "True", "it's", 1e-4, None, True, ["FLAIR", "t1gd"], []]
)
def test_a_value_comes_back_from_the_command_line_as_it_was(value):
    back = parser.DefaultParseValue(as_word(value))
    assert back == value
    assert type(back) is type(value)


def test_overlay_of_a_bundle_leaves_its_network_alone():
    assert set(overlay(RUN, Path("R/x"))) == {"+train#handlers"}


def test_overlay_of_a_reference_replaces_the_network_alone(root, tmp_path):
    (tmp_path / "overlay.json").write_text(json.dumps(overlay(REFERENCE, tmp_path)))
    train = root / "bundles/brats_lora32/configs/train.json"
    ours, theirs = ConfigParser(), ConfigParser()
    ours.read_config(str(train))
    theirs.read_config([str(train), str(tmp_path / "overlay.json")])
    config, before = theirs.get(), ours.get()
    changed = {key for key in config if config[key] != before.get(key)}
    assert changed == {"network_def", "train"}
    assert config["train"]["handlers"][:-1] == before["train"]["handlers"]
    theirs["roi_size"], theirs["feature_size"] = [32, 32, 16], 4
    network = theirs.get_parsed_content("network_def")
    assert network.config["name"] == "segresnet"
    assert (network.config["in_channels"], network.config["out_channels"]) == (4, 3)
