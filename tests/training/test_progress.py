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


def run(network, build, caplog, bias=None):
    """Train for two epochs without a step of any size, from this bias of the last layer."""
    caplog.set_level(logging.INFO, "lora_ext")
    if bias is not None:
        with torch.no_grad():
            network.decoder.out.conv.conv.bias.fill_(bias)
    trainer, _ = build(network, lambda v, o: ([TrainingLog(v, REGIONS, o)], []), learning_rate=1e-9)
    trainer.run()
    return [r for r in caplog.records if "Dice was 0 for every region" in r.message]


def test_run_that_finds_nothing_says_so_in_one_line_at_its_end(small_network, build, caplog):
    (record,) = run(small_network(), build, caplog, bias=-1e3)
    assert record is caplog.records[-1]
    assert record.levelno == logging.WARNING
    assert "\n" not in record.message
    assert all(cause in record.message for cause in ("--learning_rate", "--regions", "--spacing"))


def test_run_that_finds_something_does_not(small_network, build, caplog):
    assert run(small_network(), build, caplog, bias=1e3) == []
