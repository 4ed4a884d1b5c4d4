"""Without tracking nothing may happen; real tracked runs are in tests/bundles/test_tracking.py."""

import json

import pytest
from ignite.engine import Engine, Events

from lora_ext.training import RunRecord
from lora_ext.training.tracking import TRAINING_SETTINGS, _numbers


def test_untracked_run_is_left_alone(tmp_path):
    engine = Engine(lambda engine, batch: None)
    RunRecord("training", tmp_path / "eval", True, tmp_path / "models").attach(engine)
    engine.run([1], max_epochs=1)
    assert not engine._event_handlers[Events.EXCEPTION_RAISED]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bundle", ["brats_lora32", "mae_pretrain"])
def test_evaluations_record_the_settings_that_inference_has(root, bundle):
    """A new setting of training has to be listed as one."""
    train, inference = (
        json.loads((root / "bundles" / bundle / "configs" / file).read_text(encoding="utf-8"))
        for file in ("train.json", "inference.json")
    )
    knobs = set(list(train)[: list(train).index("save_execute_config")]) - {"imports"}
    both = {"resume", "overwrite"}  # of a training, and of an inference
    only = {"seed", "split_seed", "fold", "num_folds", "sw_batch_size", "sw_overlap"}
    assert knobs & TRAINING_SETTINGS == (knobs - inference.keys() - only) | both


def test_numbers_of_a_report_are_flat_and_undefined_ones_are_left_out(tmp_path):
    regions = {"TC": {"dice": 0.5, "hd95_mm": None}, "WT": {"dice": 1, "hd95_mm": 2.0}}
    path = tmp_path / "metrics.json"
    path.write_text(
        json.dumps({"summary": {"pooled_dice": 0.7, "regions": regions}}), encoding="utf-8"
    )
    assert _numbers(path) == {"pooled_dice": 0.7, "TC_dice": 0.5, "WT_dice": 1.0, "WT_hd95_mm": 2.0}
    path.write_text(json.dumps({"val_loss": 0.9}), encoding="utf-8")
    assert _numbers(path) == {}
