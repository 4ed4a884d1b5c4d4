"""The settings of the generated bundles: the schema lists what stands at the top, and all of it."""

import inspect
import json

import pytest

from lora_ext import ChannelLoRASwinUNETR, ChannelLoRAUNETR
from lora_ext.bundles.generator import PRETRAINING, all_facts, bundle_facts
from lora_ext.bundles.settings import (
    NAMED,
    SEGMENTATION,
    SETTINGS,
    TYPES,
    check_values,
    settings_of,
)
from lora_ext.networks.backbones import BACKBONES
from lora_ext.weights.start import NAMES

FIRST_OF_THE_WIRING = "save_execute_config"
LAYER_KEYS = {"bundle_root", "dataset_dir", "modalities", "regions", "spacing", "cache_rate",
              "regime", "lora_rank", "trained", "segment_names"}  # fmt: skip


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
    for setting in SETTINGS:
        assert setting.type.removesuffix(" or null") in TYPES, setting.name
        assert setting.allowed.words, setting.name
        assert len(setting.meaning) > 8, setting.name


@pytest.mark.parametrize("name", sorted(all_facts()))
def test_defaults_pass_the_check_of_the_start(root, name):
    for file in ("train", "inference"):
        found = config(root, name, f"{file}.json")
        literal = {k: v for k, v in found.items() if not str(v).startswith("$")}
        checked = literal.keys() & NAMED.keys()
        assert len(checked) > (10 if file == "train" else 3)
        check_values(literal)


@pytest.mark.parametrize("name", sorted(all_facts()))
def test_what_uses_a_model_takes_its_recorded_settings_from_the_record(root, name):
    train = config(root, name, "train.json")
    for file in ("evaluate", "inference"):
        found = config(root, name, f"{file}.json")
        allowed = settings_of(kind(name), "train" if file == "evaluate" else file)
        recorded = [setting.name for setting in allowed if setting.recorded]
        literal = train | train.get("encoder_sizes", {}).get("default", {})
        assert found["trained"]["default"] == {key: literal[key] for key in recorded}
        assert {k: found[k] for k in recorded} == {k: f"$@trained['{k}']" for k in recorded}


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


@pytest.mark.parametrize("name", sorted(bundle_facts()))
def test_sizes_of_the_encoder_come_from_its_file_and_else_from_the_bundle(root, name):
    train, facts = config(root, name, "train.json"), bundle_facts()[name]
    sizes = train["encoder_sizes"]["default"]
    assert sizes == {key: facts[key] for key in NAMES.values()}
    assert {k: train[k] for k in sizes} == {k: f"$@encoder_sizes['{k}']" for k in sizes}
    assert {k: train["network_def"][k] for k in sizes} == {k: f"@{k}" for k in sizes}


def shared_settings(name):
    train, inference = (settings_of(kind(name), file) for file in ("train", "inference"))
    both = {s.name for s in train} & {s.name for s in inference}
    return {name for name in both if not NAMED[name].recorded} - {"output_dir"}


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


# One wrong value of each kind for every setting that has a type or a range.
WRONG = {
    "integer": ["abc", 1.5, True, None, [1], float("nan")],
    "integer or list": ["abc", 1.5, True, {}, "[1]"],
    "number": ["fast", True, None, float("nan"), float("inf")],
    "boolean": ["false", "no", "maybe", 1, None],
    "text": ["", "another", 3, None, True],
    "list": ["iso", 4, [], None, "[1,1,1]"],
    "mapping": [[], "3", {}, None],
    "text or mapping": ["", "another", 3, None, True, [], {}],
    "folder or list": [1, "", " ", None, True, [], [1], ["a", ""]],
    "boolean or list": ["TC", 1, None, {}],
    "number or mapping": ["abc", True, None, [], float("nan"), float("inf")],
    "list or empty list": ["abc", 0, None, {}, True],
    "folder": [1, "", " ", None, True],
    "device": ["gpu0", "cuda:99", "", {}],
}
OUT_OF_RANGE = {
    "seed": [-1, 2**32], "split_seed": [-1], "fold": [-1], "num_folds": [0, 1],
    "training_cases": [0, -3], "epochs": [0, -1], "val_interval": [0], "batch_size": [0],
    "crops_per_case": [0], "num_workers": [-1], "cache_rate": [2, -0.1], "learning_rate": [0, -1],
    "encoder_learning_rate": [-1], "weight_decay": [-0.1], "lora_rank": [0], "lora_alpha": [0, -1],
    "modality_dropout": [1.0, -0.1], "feature_size": [0], "masking_ratio": [0, 1],
    "hidden_size": [0], "mlp_dim": [0], "num_layers": [0],
    "num_heads": [0, [], [2, 2, 2], [2, 2, 2, 0]], "depths": [[2, 2], [2, 2, 2, 0], [2, 2, 2, 1.5]],
    "decoder_hidden_size": [0], "decoder_mlp_dim": [0], "decoder_num_layers": [0],
    "num_prefix_tokens": [-1], "norm_eps": [0, -1e-5],
    "decoder_num_heads": [0], "sw_batch_size": [0], "sw_overlap": [1.0, -0.1],
    "modalities": [["T2", "t2"], ["$import os"], ["@device"], [1], ["=cmd|x"], ["a\nb"]],
    "regions": [{"TC": 3}, {"TC": []}, {"TC": [0.5]}, {"$x": [1]}, {"a": [1], "A": [2]}],
    "intensity": ["MR", {"CT": "hu"}, {"$import os": "ct"}, {"CT": ["ct"]}],
    "ct_window": [[1, 1], [240, -160], [0, 1, 2], ["0", 1], [0, float("inf")]],
    "pet_window": [[0, 0], [0]],
    "spacing": [[0, 1, 1], [1, 1], [1, 1, -1], [1, 1, "1"], [1, 1, float("nan")]],
    "roi_size": [[32.0, 32, 32], [30, 32, 32], [0, 16, 16], [32, 32]],
    "mirror_axes": [[3], [-1], [0, 0], [1.0], ["x"], [True]],
    "largest_component": [[1], [["TC"]]],
    "min_volume": [-0.1, {"TC": -1}, {"TC": "1"}],
    "lora_targets": [["q_proj"], ["qkv", "qkv"]],
}  # fmt: skip
FREE_TEXT = ("pretrained",)


def wrong_values():
    for setting in SETTINGS:
        base = setting.type.removesuffix(" or null")
        values = [*WRONG[base], *OUT_OF_RANGE.get(setting.name, [])]
        if setting.type.endswith("null"):
            values = [value for value in values if value is not None]
        if setting.name in FREE_TEXT:
            values = [value for value in values if value != "another"]
        yield from ((setting.name, value) for value in values)


@pytest.mark.parametrize(("name", "value"), list(wrong_values()))
def test_value_of_another_type_or_out_of_range_is_refused_in_one_sentence(name, value):
    with pytest.raises(ValueError, match=rf"^--{name}: expected .*; got ") as error:
        check_values({name: value})
    assert repr(value) in str(error.value)
    assert "\n" not in str(error.value)


def test_every_range_is_tried():
    numbers = {s.name for s in SETTINGS if s.type.split(" ")[0] in ("integer", "number")}
    assert numbers <= OUT_OF_RANGE.keys()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"spacing": [0, 0, 0], "regions": {"a": [1]}}, "--spacing: expected three numbers abo"),
        ({"fold": 5, "num_folds": 5}, "--fold: expected one below num_folds, 5; got 5"),
        (
            {"intensity": {"CT": "ct"}, "modalities": ["ct", "PET"]},
            "--intensity: expected one of auto, mr, ct, pet for each of the modalities, ",
        ),
        (
            {"largest_component": ["WT", "GD"], "regions": {"WT": [1]}},
            "--largest_component: expected True, False or names of the regions, .*'WT'.* got",
        ),
        (
            {"min_volume": {"GD": 1.0}, "regions": {"WT": [1]}},
            "--min_volume: expected a number, or",
        ),
        ({"hidden_size": 50, "num_heads": 12}, "--hidden_size: expected a multiple of num_heads"),
        ({"decoder_hidden_size": 32, "decoder_num_heads": 2}, "a multiple of 6 and of"),
        ({"backbone": "swin_unetr", "roi_size": [128, 128, 48]}, "--roi_size: expected multiples"),
        ({"backbone": "swin_unetr", "roi_size": [32, 32, 32]}, "not all of them 32"),
        ({"backbone": "swin_unetr", "feature_size": 64}, "--feature_size: expected a multiple of"),
        ({"backbone": "swin_unetr", "num_heads": 12}, "a list of four for swin_unetr"),
        ({"backbone": "unetr", "num_heads": [3, 6, 12, 24]}, "one integer for backbone unetr"),
        ({"decoder_num_heads": 12, "num_heads": None}, "--num_heads: expected an integer"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_values(values)


def test_null_sizes_are_those_of_the_backbone(root):
    meanings = {name: NAMED[name].meaning for name in ("feature_size", "num_heads")}
    for network in (ChannelLoRAUNETR, ChannelLoRASwinUNETR):
        parameters = inspect.signature(network).parameters
        for name, meaning in meanings.items():
            default = parameters[name].default
            assert str(list(default) if isinstance(default, tuple) else default) in meaning
    pretraining = config(root, PRETRAINING, "train.json")
    unetr = inspect.signature(ChannelLoRAUNETR).parameters
    for name in ("hidden_size", "mlp_dim", "num_layers", "num_heads"):
        assert pretraining[name] == unetr[name].default
    swin = inspect.signature(ChannelLoRASwinUNETR).parameters
    segmentation = config(root, "brats_lora32", "train.json")["encoder_sizes"]["default"]
    assert segmentation["depths"] == list(swin["depths"].default)
    assert segmentation["use_v2"] == swin["use_v2"].default


def test_backbones_of_the_schema_are_those_of_the_package():
    NAMED["backbone"].check("unetr")
    assert {s.backbone for s in SETTINGS} - {None} == set(BACKBONES)
    for setting in (s for s in SETTINGS if s.backbone and SEGMENTATION in s.kinds):
        for name, network in BACKBONES.items():
            taken = setting.name in inspect.signature(network).parameters
            assert taken == (name == setting.backbone)


def test_no_spelling_stands_for_two_settings():
    spellings = [word for setting in SETTINGS for word in setting.also]
    assert len(set(spellings)) == len(spellings)
    assert not set(spellings) & NAMED.keys()
