import json
import sys

import pytest
from ignite.engine import Engine

from lora_ext.training.tracking import (
    check_tracking,
    executed_config,
    log_figure,
    mlflow_handlers,
    run_settings,
)

WRITTEN = "config_20261125_204811.json"


@pytest.fixture
def config(tmp_path):
    """A config as MONAI writes it for a tracked run, with its default handler."""
    content = {
        "_meta_": {"name": "brats_lora32", "version": "0.1.0"},
        "imports": ["$import monai"],
        "device": "$torch.device('cpu')",
        "output_dir": str(tmp_path),
        "learning_rate": 0.005,
        "pretrained": None,
        "modalities": ["FLAIR", "t1gd"],
        "regions": {"WT": [1, 2, 3]},
        "loss": {"_target_": "torch.nn.MSELoss"},
        "network": "@network_def",
        "validate": {"handlers": [{"_target_": "MLFlowHandler"}]},
        "experiment_name": "monai_experiment",
        "tracking_uri": "http://user:password@server",
        "run": ["$@train#trainer.run()"],
    }
    path = tmp_path / WRITTEN
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_settings_are_the_literal_values_and_no_wiring(config):
    assert run_settings(config) == {
        "bundle": "brats_lora32",
        "bundle_version": "0.1.0",
        "output_dir": str(config.parent),
        "learning_rate": 0.005,
        "pretrained": None,
        "modalities": ["FLAIR", "t1gd"],
        "regions": {"WT": [1, 2, 3]},
    }


def test_executed_config_is_found_where_monai_says_it_is_and_where_it_means(config):
    folder = config.parent
    assert executed_config(str(config), "/elsewhere") == config
    assert executed_config(f"{folder} + '/{WRITTEN}'", folder) == config


@pytest.mark.parametrize("value", [True, None, "/nowhere/config.json"])
def test_without_a_written_config_there_is_none(tmp_path, value):
    assert executed_config(value, tmp_path) is None


def test_tracking_without_mlflow_is_refused_in_one_sentence(config, monkeypatch):
    check_tracking(str(config), config.parent)  # mlflow is there
    monkeypatch.setitem(sys.modules, "mlflow", None)  # and now it is not
    for value in (str(config), None):
        with pytest.raises(ValueError, match="found no package mlflow; install it"):
            check_tracking(value, config.parent)


def test_untracked_runs_and_other_trackers_need_no_mlflow(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    check_tracking(True, config.parent)
    config.write_text(
        config.read_text(encoding="utf-8").replace("MLFlowHandler", "SomeOtherHandler"),
        encoding="utf-8",
    )
    check_tracking(str(config), config.parent)


def test_untracked_engine_has_no_handler_and_logs_no_figure():
    engine = Engine(lambda engine, batch: None)
    assert mlflow_handlers(engine) == []
    log_figure(engine, figure=None, path="validation/epoch_0001.png")
