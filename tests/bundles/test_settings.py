"""The settings of the generated bundles: the schema lists what stands at the top, and all of it."""

import json

import pytest

from lora_ext.bundles.generator import PRETRAINING, all_facts, bundle_facts
from lora_ext.bundles.settings import SETTINGS, settings_of

FIRST_OF_THE_WIRING = "save_execute_config"
LAYER_KEYS = {"bundle_root", "dataset_dir", "modalities", "regions", "spacing", "cache_rate",
              "regime", "lora_rank"}  # fmt: skip


def config(root, name, file):
    return json.loads((root / "bundles" / name / "configs" / file).read_text(encoding="utf-8"))


def kind(name):
    return "segmentation" if name in bundle_facts() else "pretraining"


@pytest.mark.parametrize("file", ["train", "inference"])
@pytest.mark.parametrize("name", sorted(all_facts()))
def test_what_stands_before_the_wiring_is_what_the_schema_lists(root, name, file):
    keys = list(config(root, name, f"{file}.json"))
    assert keys[0] == "imports"
    found = keys[1 : keys.index(FIRST_OF_THE_WIRING)]
    assert found == [setting.name for setting in settings_of(kind(name), file)]


@pytest.mark.parametrize("file", ["train", "inference"])
@pytest.mark.parametrize("name", sorted(all_facts()))
def test_what_stands_below_is_wiring(root, name, file):
    """A literal value among the wiring is a setting that somebody forgot to list."""
    content = config(root, name, f"{file}.json")
    keys = list(content)
    for key in keys[keys.index(FIRST_OF_THE_WIRING) + 1 :]:
        value = content[key]
        assert isinstance(value, (dict, list)) or str(value).startswith(("$", "@")), key


def test_every_setting_is_described_once_and_in_full():
    names = [setting.name for setting in SETTINGS]
    assert len(set(names)) == len(names)
    types = {"text", "folder", "integer", "number", "boolean", "list", "mapping"}
    for setting in SETTINGS:
        assert setting.type.removesuffix(" or null") in types, setting.name
        assert setting.allowed, setting.name
        assert len(setting.meaning) > 8, setting.name


@pytest.mark.parametrize("name", sorted(all_facts()))
def test_default_has_the_type_that_the_schema_says(root, name):
    kinds = {"text": str, "integer": int, "number": (int, float), "boolean": bool, "list": list,
             "mapping": dict, "folder": str}  # fmt: skip
    for file in ("train", "inference"):
        content = config(root, name, f"{file}.json")
        for setting in settings_of(kind(name), file):
            value, _, null = content[setting.name], *setting.type.partition(" or ")[1:]
            if isinstance(value, str) and value.startswith("$"):
                continue  # found at the start
            assert (
                value is None
                if null and value is None
                else isinstance(value, kinds[setting.type.split(" or ")[0]])
            ), setting.name
            assert setting.type == "boolean" or not isinstance(value, bool), setting.name


@pytest.mark.parametrize("name", sorted(all_facts()))
def test_table_in_the_docs_has_a_row_for_each_setting(root, name):
    text = (root / "bundles" / name / "docs" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    names = [row.split("`")[1] for row in rows if row.count("|") == 6]
    assert names == [setting.name for setting in settings_of(kind(name))]


@pytest.mark.parametrize("file", ["train.json", "evaluate.json", "inference.json"])
def test_bundles_differ_in_their_layers_keys_alone(root, file):
    wirings = {
        json.dumps({k: v for k, v in config(root, name, file).items() if k not in LAYER_KEYS})
        for name in bundle_facts()
    }
    assert len(wirings) == 1


def shared_settings(name):
    train, inference = (settings_of(kind(name), file) for file in ("train", "inference"))
    return {s.name for s in train} & {s.name for s in inference} - {"output_dir"}


def test_inference_builds_the_network_of_training(root):
    for name in bundle_facts():
        train, infer = config(root, name, "train.json"), config(root, name, "inference.json")
        training_only = {"modality_dropout", "activation_checkpointing"}
        network = {k: v for k, v in train["network_def"].items() if k not in training_only}
        assert infer["network_def"] == network
        for key in shared_settings(name):
            assert infer[key] == train[key], key


def test_pretraining_inference_sees_what_its_validation_sees(root):
    train = config(root, PRETRAINING, "train.json")
    infer = config(root, PRETRAINING, "inference.json")
    steps = train["train"]["deterministic_transforms"] + train["validate"]["crop"]
    assert infer["preprocessing"]["transforms"] == steps
    # the encoder alone, of an auto-encoder of the same sizes
    exported = train["network_def"] | {"_target_": "lora_ext.pretraining.VolumeEncoder"}
    assert infer["network_def"] == exported
    for key in shared_settings(PRETRAINING):
        assert infer[key] == train[key], key
