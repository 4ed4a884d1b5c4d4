"""Learning curves out of logs, also of resumed runs; the lines come from the real `TrainingLog`."""

import logging

import torch
from ignite.engine import Engine, Events

from lora_ext.data import announce_cases
from lora_ext.study.training_log import epoch_of, last_lines, read_curve, training_cases
from lora_ext.training import TrainingLog

RESUMED = """\
10:00:00 INFO epoch 1/3: loss 1.5000, learning rate 0.0041, 0.5 s
10:00:01 INFO epoch 1/3: validation pooled_dice 0.1000 (best 0.1000 in epoch 1), mean_dice 0.1, TC
10:00:02 INFO epoch 2/3: loss 1.4000, learning rate 4e-06, 0.5 s
something else entirely, epoch 9 of nothing
10:01:00 INFO resumed from last.ckpt after epoch 1
10:01:02 INFO epoch 2/3: loss 1.3000, learning rate 4e-06, 0.5 s
10:01:03 INFO epoch 3/3: loss 1.2"""


def test_a_repeated_epoch_counts_the_second_time_and_a_torn_line_not_at_all(tmp_path):
    (tmp_path / "x.log").write_text(RESUMED)
    assert read_curve(tmp_path / "x.log") == [
        {"epoch": 1, "loss": 1.5, "learning_rate": 0.0041, "seconds": 0.5, "val_pooled_dice": 0.1},
        {"epoch": 2, "loss": 1.3, "learning_rate": 4e-6, "seconds": 0.5, "val_pooled_dice": None},
    ]


def test_a_missing_log_is_an_empty_curve_and_has_no_last_lines(tmp_path):
    assert read_curve(tmp_path / "none.log") == []
    assert last_lines(tmp_path / "none.log") == ""


def test_what_training_really_logs_is_understood(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trainer = Engine(lambda engine, batch: [{"loss": 0.75}])
    validator = Engine(lambda engine, batch: None)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.005)
    TrainingLog(validator, ["TC"], optimizer).attach(trainer)
    trainer.run([0], max_epochs=2)
    validator.state.metrics = {"val_pooled_dice": 0.5, "TC": 0.25}
    validator.state.best_metric, validator.state.best_metric_epoch = 0.5, 2
    validator.fire_event(Events.COMPLETED)
    (tmp_path / "x.log").write_text(caplog.text)
    assert read_curve(tmp_path / "x.log") == [
        {"epoch": 1, "loss": 0.75, "learning_rate": 0.005, "seconds": 0.0, "val_pooled_dice": None},
        {"epoch": 2, "loss": 0.75, "learning_rate": 0.005, "seconds": 0.0, "val_pooled_dice": 0.5},
    ]
    epochs = {epoch_of(line) for line in caplog.text.splitlines()}
    assert {(1, 2), (2, 2)} <= epochs


def test_the_number_of_training_cases_is_read_where_the_log_tells_it(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    case = {"case": "a", "image": "a.nii.gz"}
    announce_cases([case] * 17, [case])
    (tmp_path / "x.log").write_text(RESUMED + "\n" + caplog.text)
    assert training_cases(tmp_path / "x.log") == 17
    (tmp_path / "x.log").write_text(RESUMED)
    assert training_cases(tmp_path / "x.log") is None
    assert training_cases(tmp_path / "none.log") is None


def test_an_epoch_without_its_seconds_is_an_epoch_all_the_same(tmp_path):
    (tmp_path / "x.log").write_text("INFO epoch 1/3: loss 1.5000, learning rate 0.0041, 0.")
    (point,) = read_curve(tmp_path / "x.log")
    assert (point["loss"], point["seconds"]) == (1.5, None)


def test_last_lines_are_the_last_that_say_something(tmp_path):
    (tmp_path / "x.log").write_text("a\n\nb\n \nc\n\n")
    assert last_lines(tmp_path / "x.log", 2) == "b\nc"
