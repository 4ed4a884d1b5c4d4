"""What metadata.json states is what the configs of the same bundle say."""

import json

import pytest

from lora_ext.bundles.generator import PRETRAINING, all_facts, bundle_facts


@pytest.fixture
def read(root):
    """A function that reads a config of a committed bundle."""

    def load(name, file):
        return json.loads(
            (root / "bundles" / name / "configs" / f"{file}.json").read_text(encoding="utf-8")
        )

    return load


@pytest.mark.parametrize("name", bundle_facts())
def test_tensors_are_those_of_the_network(read, name):
    tensors = read(name, "metadata")["network_data_format"]
    image, pred = tensors["inputs"]["image"], tensors["outputs"]["pred"]
    for config in (read(name, "train"), read(name, "inference")["trained"]["default"]):
        assert image["num_channels"] == len(config["modalities"])
        assert list(image["channel_def"].values()) == config["modalities"]
        assert image["spatial_shape"] == pred["spatial_shape"] == config["roi_size"]
        assert pred["num_channels"] == len(config["regions"])


def test_tensors_of_pretraining_are_those_of_its_encoder(read):
    tensors = read(PRETRAINING, "metadata")["network_data_format"]
    image, pred = tensors["inputs"]["image"], tensors["outputs"]["pred"]
    for config in (
        read(PRETRAINING, "train"),
        read(PRETRAINING, "inference")["trained"]["default"],
    ):
        assert (image["num_channels"], image["spatial_shape"]) == (1, config["roi_size"])
        assert pred["num_channels"] == config["hidden_size"]
        assert pred["spatial_shape"] == [side // 16 for side in config["roi_size"]]


@pytest.mark.parametrize("name", all_facts())
def test_names_versions_and_texts_are_there(root, read, name):
    metadata = read(name, "metadata")
    lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    stated = {p: metadata[f"{k}_version"] for p, k in (("monai", "monai"), ("torch", "pytorch"))}
    stated |= metadata["required_packages_version"] | {"numpy": metadata["numpy_version"]}
    assert stated == pins
    assert metadata["name"] == name
    for key in ("task", "description", "data_source", "image_classes", "intended_use"):
        assert len(metadata[key]) > 10
        assert "$" not in metadata[key]
    assert metadata["references"]


@pytest.mark.parametrize("name", bundle_facts())
def test_texts_name_the_channels_the_regions_and_the_spacing(read, name):
    metadata, config = read(name, "metadata"), read(name, "train")
    assert metadata["image_classes"].startswith(", ".join(config["modalities"]) + " at ")
    assert "x".join(f"{side:g}" for side in config["spacing"]) in metadata["image_classes"]
    assert all(f"{region} = {{" in metadata["pred_classes"] for region in config["regions"])
    assert f"{len(config['modalities'])}-channel" in metadata["task"]
    assert ("rank" in metadata["task"]) == (config["regime"] == "lora")
    if config["regime"] == "lora":
        assert f"rank {config['lora_rank']}" in metadata["task"]


@pytest.mark.parametrize("name", all_facts())
def test_docs_have_the_zoos_parts_in_order(root, name):
    text = (root / "bundles" / name / "docs" / "README.md").read_text(encoding="utf-8")
    heads = [line for line in text.splitlines() if line.startswith("##")]
    assert heads == [
        "## Model", "## Data", "## Training configuration", "### Memory", "## Commands",
        "### Export", "## Settings", "## Input and output", "## Performance", "## Limits",
        "## References", "## Licence",
    ]  # fmt: skip
    assert f"bundles/{name}/configs/train.json" in text
