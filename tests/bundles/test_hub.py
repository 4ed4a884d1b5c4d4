"""An encoder in Hugging Face form, read by huggingface_hub and by a Markdown reader's rules."""

import json
import re

import pytest
import torch
from huggingface_hub import ModelCard
from monai.networks.nets import ViT

from lora_ext.bundles.hub import escaped, export_encoder
from lora_ext.networks.config import with_record
from lora_ext.weights import network_for_encoder, save_encoder

SIZES = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 4, "num_heads": 4}
EVIL = "T1](https://x.example) | <b>x</b>\n# head $@{0.__class__} {weights}"
RECORD = {
    "img_size": [32, 32, 16], **SIZES, "spacing": [1.0, 1.0, 2.0], "intensity": "auto",
    "masking_ratio": 0.75, "epochs": 7, "trained_on": ["anna_T1", "anna_T2"],
    "volumes": {EVIL: {"volumes": 2, "intensity": "mr"}}, "versions": {"torch": "2"},
}  # fmt: skip


@pytest.fixture
def trained(tmp_path):
    """A function that writes what a pre-training leaves, and returns its folder and its ViT."""

    def write(**changed):
        torch.manual_seed(0)
        vit = ViT(1, (32, 32, 16), 16, **SIZES)
        folder = tmp_path / "models"
        path = folder / "encoder.safetensors"
        save_encoder(vit.state_dict(), path, img_size=(32, 32, 16), num_heads=4, epoch=5)
        torch.save(with_record({"w": torch.zeros(1)}, RECORD | changed), folder / "model.pt")
        return folder, vit

    return write


def test_exported_weights_build_and_fill_a_network(trained, tmp_path):
    folder, vit = trained()
    out = export_encoder(folder, tmp_path / "hub")
    network = network_for_encoder(out / "model.safetensors", 1, 1, (32, 32, 16), regime="frozen")
    ours, theirs = network.encoder.state_dict(), vit.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert {k: config[k] for k in SIZES} == SIZES
    assert (config["img_size"], config["spacing"]) == ([32, 32, 16], [1.0, 1.0, 2.0])


def test_hub_reads_the_card_and_its_licence_is_to_be_filled_in(trained, tmp_path):
    text = (export_encoder(trained()[0], tmp_path / "hub") / "README.md").read_text("utf-8")
    card = ModelCard(text)
    assert (card.data.license, card.data.license_name) == ("other", "to-be-filled-in")
    assert "Licence: to be filled in" in card.text
    assert "--pretrained hf://OWNER/NAME/model.safetensors" in card.text
    assert "| best epoch | 5 |" in card.text
    assert "2 volumes of one channel" in card.text
    assert "anna" not in text


def test_nothing_of_a_record_is_read_as_markdown_or_format(trained, tmp_path):
    text = (export_encoder(trained()[0], tmp_path / "hub") / "README.md").read_text("utf-8")
    (row,) = [line for line in text.splitlines() if "x\\.example" in line]
    assert "\n# head" not in text
    assert len(re.findall(r"(?<!\\)\|", row)) == 4  # the table's own
    assert not re.search(r"(?<!\\)[\[\]<>(){}$@]", row)
    assert "weights" in row


def test_text_that_was_escaped_is_the_text_again():
    assert re.sub(r"\\(.)", r"\1", escaped(EVIL)) == EVIL.replace("\n", " ")


def test_a_record_with_a_setting_that_cannot_be_is_refused(trained, tmp_path):
    folder, _ = trained(spacing="$import os")
    with pytest.raises(ValueError, match="spacing: expected a list"):
        export_encoder(folder, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_card_that_is_there_stays_unless_it_is_told(trained, tmp_path):
    folder, _ = trained()
    out = export_encoder(folder, tmp_path / "hub")
    (out / "README.md").write_text("edited", encoding="utf-8")
    with pytest.raises(ValueError, match="--overwrite to replace it"):
        export_encoder(folder, out)
    assert (out / "README.md").read_text(encoding="utf-8") == "edited"
    export_encoder(folder, out, overwrite=True)
    assert (out / "README.md").read_text(encoding="utf-8") != "edited"


def test_folder_without_an_encoder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected the --ckpt_dir of a mae_pretrain training"):
        export_encoder(tmp_path, tmp_path / "hub")
