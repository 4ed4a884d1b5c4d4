import json

from ignite.engine import Engine

from lora_ext.pretraining import VolumeReport


def test_metrics_are_written_as_they_are(tmp_path):
    engine = Engine(lambda engine, batch: None)
    VolumeReport(tmp_path).attach(engine)
    engine.state.metrics = {"val_loss": 0.75, "val_mean_only_loss": 1.0}
    engine.run([0])
    assert json.loads((tmp_path / "metrics.json").read_text()) == engine.state.metrics
