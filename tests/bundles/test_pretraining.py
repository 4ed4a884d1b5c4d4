"""The pre-training bundle, run as MONAI runs it, and its encoder in a segmentation bundle."""

import json
import logging

import pytest
import torch
from monai.networks.nets import ViT

from lora_ext.bundles.starting import user_error
from lora_ext.weights import save_encoder

ENCODER = {
    "roi_size": [32, 32, 16],
    "hidden_size": 24,
    "mlp_dim": 32,
    "num_layers": 4,
    "num_heads": 2,
    "num_workers": 0,
}
SIZES = ("hidden_size", "mlp_dim", "num_layers", "num_heads")  # which the encoder's file says
DECODER = {
    "decoder_hidden_size": 12,
    "decoder_mlp_dim": 16,
    "decoder_num_layers": 1,
    "decoder_num_heads": 2,
}
TRAINING = {"epochs": 2, "val_interval": 1, "batch_size": 4, "crops_per_case": 1}


@pytest.fixture
def run_bundle(run_workflow, tasks):
    """A function that runs the pre-training bundle, or another one with its encoder, tiny."""

    def run(kind, name="mae_pretrain", sized=True, **settings):
        decoder = DECODER if name == "mae_pretrain" else {}
        training = TRAINING if kind == "train" else {}
        own = {"dataset_dir": str(tasks["brats"]), **ENCODER, **decoder, **training}
        own = {key: value for key, value in own.items() if sized or key not in SIZES}
        # logging_file=False: the bundle's logging.conf would take the log away from caplog
        return run_workflow(name, kind, logging_file=False, **{**own, **settings})

    return run


def test_bundle_trains_evaluates_and_infers(run_bundle, tmp_path):
    trainer = run_bundle("train").parser.get_parsed_content("train#trainer")
    assert trainer.state.epoch == 2
    files = {p.name for p in (tmp_path / "models").glob("[!.]*")}
    assert files == {"model.pt", "network.json", "encoder.safetensors", "last.ckpt"}
    assert len(list((tmp_path / "train" / "figures").glob("*.png"))) == 4

    evaluator = run_bundle("evaluate").parser.get_parsed_content("validate#evaluator")
    metrics = json.loads((tmp_path / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == pytest.approx(evaluator.state.metrics)
    assert metrics["val_mean_only_loss"] == pytest.approx(1, abs=0.3)

    run_bundle("infer")
    assert len(list((tmp_path / "infer" / "figures").glob("*.png"))) == 5 * 4


def test_evaluation_agrees_with_the_best_validation(run_bundle, tmp_path):
    validated = run_bundle("train").parser.get_parsed_content("validate#evaluator").state
    run_bundle("evaluate")
    metrics = json.loads((tmp_path / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["val_explained"] == pytest.approx(validated.best_metric, abs=1e-6)


def test_resumed_run_goes_on_after_its_last_epoch(run_bundle, tmp_path):
    run_bundle("train")
    before = torch.load(tmp_path / "models" / "last.ckpt", weights_only=True)
    before["epoch"], before["iteration"] = 1, before["iteration"] // 2
    before["lr_scheduler"]["last_epoch"] = before["iteration"]
    torch.save(before, tmp_path / "models" / "last.ckpt")
    trainer = run_bundle("train", resume=True).parser.get_parsed_content("train#trainer")
    assert (trainer.state.epoch, trainer.state.iteration) == (2, 2 * before["iteration"])


def test_its_encoder_starts_a_segmentation_bundle(run_bundle, tmp_path, caplog):
    run_bundle("train")
    caplog.set_level(logging.INFO)
    path = tmp_path / "models" / "encoder.safetensors"
    workflow = run_bundle(
        "train", "brats_lora16", feature_size=4, sw_overlap=0.0, pretrained=str(path),
        ckpt_dir=str(tmp_path / "segmentation"),
    )  # fmt: skip
    autoencoder = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    encoder = workflow.parser.get_parsed_content("network_def").encoder
    weight = encoder.blocks[3].attn.qkv.weight  # no adapter on it, and the base is frozen
    assert torch.equal(weight, autoencoder["blocks.3.attn.qkv.weight"])
    assert str(path) in caplog.text


def test_segmentation_bundle_without_an_encoder_records_that_it_is_random(
    run_bundle, tmp_path, caplog
):
    run_bundle("train", "brats_frozen", feature_size=4)
    assert "RANDOM weights" in caplog.text
    made = json.loads((tmp_path / "models" / "network.json").read_text(encoding="utf-8"))
    assert made["encoder"] == "random"


@pytest.mark.parametrize("name", ["brats_lora32", "brats_finetune"])
def test_encoder_of_the_neighbouring_mae_pretrain_is_found_without_a_flag(
    run_bundle, tmp_path, caplog, name
):
    caplog.set_level(logging.INFO)
    models = tmp_path / "bundles" / "mae_pretrain" / "models"
    run_bundle("train", ckpt_dir=str(models))
    own = {"feature_size": 4, "ckpt_dir": str(tmp_path / "own")}
    run_bundle("train", name, sized=False, **own)
    assert f"encoder loaded from {models / 'encoder.safetensors'}" in caplog.text
    assert "RANDOM" not in caplog.text
    made = json.loads((tmp_path / "own" / "network.json").read_text(encoding="utf-8"))
    assert made["encoder"].startswith("encoder.safetensors (sha256 ")
    assert {key: made[key] for key in SIZES} == {key: ENCODER[key] for key in SIZES}
    run_bundle("evaluate", name, sized=False, **own)
    report = json.loads((tmp_path / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    assert report["encoder"] == made["encoder"]


@pytest.mark.parametrize(
    ("name", "flags", "sentence"),
    [
        (
            "brats_lora16",
            {"hidden_size": 48},
            "hidden size 24; this network has 48 (--hidden_size)",
        ),
        ("brats_frozen", {"num_heads": 4}, "attention heads 2; this network has 4 (--num_heads)"),
        ("brats_baseline", {}, "regime 'baseline' starts from a random encoder, but pretrained="),
    ],
)
def test_flags_that_are_not_the_encoders_end_the_run_before_data_is_read(
    run_workflow, tmp_path, name, flags, sentence
):
    path = tmp_path / "encoder.safetensors"
    sizes = {key: ENCODER[key] for key in SIZES}
    vit = ViT(1, (32, 32, 16), 16, **sizes)
    save_encoder(vit.state_dict(), path, img_size=(32, 32, 16), num_heads=2)
    with pytest.raises(RuntimeError) as error:
        run_workflow(name, "train", dataset_dir="nowhere", pretrained=str(path), **flags)
    found = user_error(error.value)
    assert sentence in str(found)
    assert "\n" not in str(found)
    assert not (tmp_path / "train").exists()
