import logging

import torch
from ignite.engine import Engine

from lora_ext.pretraining import PretrainingLog


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
