"""The settings of the generated bundles: what stands at the top, and what differs."""

import json

import pytest

from lora_ext.bundles.generator import PRETRAINING, all_facts, bundle_facts

KNOBS = [
    "bundle_root",
    "dataset_dir",
    "output_dir",
    "ckpt_dir",
    "device",
    "seed",
    "fold",
    "num_folds",
    "training_cases",
    "modalities",
    "spacing",
    "roi_size",
    "epochs",
    "val_interval",
    "batch_size",
    "crops_per_case",
    "num_workers",
    "cache_rate",
    "learning_rate",
    "encoder_learning_rate",
    "amp",
    "compile",
    "activation_checkpointing",
    "pretrained",
    "resume",
    "regime",
    "lora_rank",
    "lora_alpha",
    "lora_scaling",
    "lora_targets",
    "modality_dropout",
    "feature_size",
    "hidden_size",
    "mlp_dim",
    "num_layers",
    "num_heads",
    "sw_batch_size",
    "sw_overlap",
]
PRETRAINING_KNOBS = [
    "bundle_root",
    "dataset_dir",
    "output_dir",
    "ckpt_dir",
    "device",
    "seed",
    "fold",
    "num_folds",
    "intensity",
    "spacing",
    "roi_size",
    "epochs",
    "val_interval",
    "batch_size",
    "crops_per_case",
    "num_workers",
    "cache_rate",
    "learning_rate",
    "weight_decay",
    "amp",
    "compile",
    "resume",
    "masking_ratio",
    "hidden_size",
    "mlp_dim",
    "num_layers",
    "num_heads",
    "decoder_hidden_size",
    "decoder_mlp_dim",
    "decoder_num_layers",
    "decoder_num_heads",
]
LAYER_KEYS = {"bundle_root", "dataset_dir", "modalities", "regions", "spacing", "cache_rate",
              "regime", "lora_rank"}  # fmt: skip


def config(root, name, file):
    return json.loads((root / "bundles" / name / "configs" / file).read_text())


@pytest.mark.parametrize("name", sorted(all_facts()))
def test_every_knob_is_a_top_level_key_before_the_wiring(root, name):
    keys, knobs = list(config(root, name, "train.json")), PRETRAINING_KNOBS
    if name in bundle_facts():
        knobs = KNOBS
    assert [k for k in keys if k in knobs] == knobs
    assert keys.index("network_def") > max(keys.index(k) for k in knobs)


@pytest.mark.parametrize("file", ["train.json", "evaluate.json", "inference.json"])
def test_bundles_differ_in_their_layers_keys_alone(root, file):
    wirings = {
        json.dumps({k: v for k, v in config(root, name, file).items() if k not in LAYER_KEYS})
        for name in bundle_facts()
    }
    assert len(wirings) == 1


def test_inference_builds_the_network_of_training(root):
    for name in bundle_facts():
        train, infer = config(root, name, "train.json"), config(root, name, "inference.json")
        training_only = {"modality_dropout", "activation_checkpointing"}
        network = {k: v for k, v in train["network_def"].items() if k not in training_only}
        assert infer["network_def"] == network
        for key in infer.keys() & train.keys() & set(KNOBS) - {"output_dir"}:
            assert infer[key] == train[key], key


def test_pretraining_inference_sees_what_its_validation_sees(root):
    train = config(root, PRETRAINING, "train.json")
    infer = config(root, PRETRAINING, "inference.json")
    steps = train["train"]["deterministic_transforms"] + train["validate"]["crop"]
    assert infer["preprocessing"]["transforms"] == steps
    # the encoder alone, of an auto-encoder of the same sizes
    exported = train["network_def"] | {"_target_": "lora_ext.pretraining.VolumeEncoder"}
    assert infer["network_def"] == exported
    for key in infer.keys() & set(PRETRAINING_KNOBS) - {"output_dir"}:
        assert infer[key] == train[key], key


def test_the_output_format_is_a_knob_of_inference_before_the_wiring(root):
    for name in bundle_facts():
        infer = config(root, name, "inference.json")
        keys = list(infer)
        assert infer["output_ext"] == ".nii.gz"
        assert keys.index("output_ext") < keys.index("network_def")
