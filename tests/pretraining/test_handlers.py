"""Handlers on small engines: what they write to files and to the console."""

import json
import logging

import safetensors
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from lora_ext.networks.encoder import ChannelEncoder
from lora_ext.pretraining import (
    BestEncoder,
    PretrainingLog,
    ReconstructionPanels,
    VolumeAutoEncoder,
    VolumeReport,
    volume_as_target,
)
from lora_ext.weights import load_model


def test_volume_is_its_own_target_and_a_plain_tensor():
    batch = {"image": MetaTensor(torch.ones(2, 1, 16, 16, 16)), "case": ["a", "b"]}
    volume, target = volume_as_target(batch, device="cpu")
    assert volume is target
    assert type(volume) is torch.Tensor


def test_best_validation_leaves_the_autoencoder_and_its_encoder(autoencoder, tmp_path):
    network = autoencoder()
    engine = Engine(lambda engine, batch: None)
    engine.state.best_metric_epoch = 1
    BestEncoder(network, tmp_path).attach(engine)
    engine.run([0])
    assert {p.name for p in tmp_path.iterdir()} == {
        "model.pt", "network.json", "encoder.safetensors",
    }  # fmt: skip
    with safetensors.safe_open(tmp_path / "encoder.safetensors", framework="pt") as file:
        keys, metadata = set(file.keys()), file.metadata()
        norm = file.get_tensor("norm.weight")
    sizes = {k: network.config[k] for k in ("hidden_size", "mlp_dim", "num_layers", "num_heads")}
    encoder = ChannelEncoder(["c"], (32, 32, 16), **sizes)
    assert keys == set(encoder.state_dict())
    assert torch.equal(norm, network.blocks[4].weight)
    assert json.loads(metadata["img_size"]) == [32, 32, 16]

    again = VolumeAutoEncoder(**json.loads((tmp_path / "network.json").read_text(encoding="utf-8")))
    load_model(again, tmp_path / "model.pt")
    ours, theirs = network.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())


def test_worse_validation_leaves_nothing(autoencoder, tmp_path):
    engine = Engine(lambda engine, batch: None)
    engine.state.best_metric_epoch = 0
    BestEncoder(autoencoder(), tmp_path).attach(engine)
    engine.run([0])
    assert list(tmp_path.iterdir()) == []


def test_validation_line_compares_the_loss_with_the_patches_means(caplog):
    caplog.set_level(logging.INFO)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    validator = Engine(lambda engine, batch: None)
    validator.state.best_metric, validator.state.best_metric_epoch = 0.25, 1
    metrics = {"val_loss": 0.75, "val_mean_only_loss": 1.0, "val_explained": 0.25}
    trainer = Engine(lambda engine, batch: {"loss": torch.tensor(0.5)})
    PretrainingLog(validator, optimizer).attach(trainer)
    trainer.run([0], max_epochs=1)
    validator.state.metrics = metrics
    validator.run([0])
    assert "epoch 1/1: loss 0.5000" in caplog.text
    assert "masked-patch loss 0.7500, 1.0000 for the patches' means alone" in caplog.text
    assert "25.0 % of their detail predicted (best 25.0 % in epoch 1)" in caplog.text


def test_first_volumes_are_drawn_at_every_validation(autoencoder, volumes, tmp_path):
    network = autoencoder()
    batches = [{"case": [f"a{i}", f"b{i}"], "image": volumes} for i in range(2)]

    def step(engine, batch):
        with torch.no_grad():
            return {"image": batch["image"], "pred": network(batch["image"])}

    engine = Engine(step)
    ReconstructionPanels(tmp_path, limit=3).attach(engine)
    engine.run(batches, max_epochs=2)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {"a0.png", "b0.png", "a1.png"}
    assert list(tmp_path.glob("events.*"))


def test_metrics_are_written_as_they_are(tmp_path):
    engine = Engine(lambda engine, batch: None)
    VolumeReport(tmp_path).attach(engine)
    engine.state.metrics = {"val_loss": 0.75, "val_mean_only_loss": 1.0}
    engine.run([0])
    assert (
        json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == engine.state.metrics
    )
