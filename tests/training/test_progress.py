import logging
import re

import pytest
import torch

from lora_ext.training import TrainingLog

REGIONS = ["TC", "WT", "ET"]


def test_console_shows_loss_and_dice_per_region(small_network, build, caplog):
    caplog.set_level(logging.INFO, "lora_ext")
    trainer, validator = build(
        small_network(), lambda v, o: ([TrainingLog(v, REGIONS, o)], []), epochs=2
    )
    trainer.run()
    lines = [r.message for r in caplog.records if r.name.startswith("lora_ext")]
    number = r"\d\.\d{4}"
    assert len(lines) == 4
    assert re.fullmatch(rf"epoch 2/2: loss {number}, learning rate 0.001, \d+\.\d s", lines[2])
    assert re.fullmatch(
        rf"epoch 2/2: validation pooled_dice {number} \(best {number} in epoch \d\), "
        rf"mean_dice {number}, TC {number} WT {number} ET {number}",
        lines[3],
    )
    shown = [float(x) for x in re.findall(number, lines[3])]
    metrics = validator.state.metrics
    assert shown[0] == pytest.approx(metrics["val_pooled_dice"], abs=1e-4)
    assert shown[2] == pytest.approx(sum(metrics[r] for r in REGIONS) / 3, abs=1e-4)


def test_a_loss_that_is_not_finite_ends_the_run(small_network, build):
    network = small_network()
    trainer, _ = build(network, lambda v, o: ([TrainingLog(v, REGIONS, o)], []))
    with torch.no_grad():
        network.decoder.out.conv.conv.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"loss is nan in epoch 1.*lower --learning_rate"):
        trainer.run()
