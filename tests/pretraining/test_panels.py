import torch
from ignite.engine import Engine

from lora_ext.pretraining import ReconstructionPanels


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
