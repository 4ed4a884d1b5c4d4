import json

import safetensors
import torch
from ignite.engine import Engine

from lora_ext.networks.encoder import ChannelEncoder
from lora_ext.pretraining import BestEncoder, VolumeAutoEncoder
from lora_ext.weights import load_model


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

    again = VolumeAutoEncoder(**json.loads((tmp_path / "network.json").read_text()))
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
