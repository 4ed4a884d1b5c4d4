"""A bundle's run that is stopped: what it says, what it leaves, and how it goes on."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from ignite.engine import Events

TINY = {
    "roi_size": [32, 32, 16], "feature_size": 4, "hidden_size": 24, "mlp_dim": 32,
    "num_layers": 4, "num_heads": 2, "sw_overlap": 0.0, "modality_dropout": 0.5,
}  # fmt: skip
AUTOENCODER = {
    **{key: TINY[key] for key in ("roi_size", "hidden_size", "mlp_dim", "num_layers", "num_heads")},
    "decoder_hidden_size": 24, "decoder_mlp_dim": 32, "decoder_num_layers": 1,
    "decoder_num_heads": 2,
}  # fmt: skip


class Killed(BaseException):
    """Ends a run as a signal would."""


@pytest.fixture
def train(run_workflow, tasks, tmp_path):
    """A function that trains three epochs, or is stopped in the second; returns what it left."""

    def run(name, folder, stop=False, **settings):
        def interrupt(workflow):
            if stop:
                trainer = workflow.parser.get_parsed_content("train#trainer")
                length = len(trainer.data_loader)
                trainer.add_event_handler(Events.ITERATION_COMPLETED(once=length + 1), fall)

        def fall():
            raise Killed

        sizes = AUTOENCODER if name == "mae_pretrain" else {**TINY, "pretrained": "none"}
        own = {"dataset_dir": str(tasks["brats"]), "epochs": 3, "val_interval": 1, "batch_size": 2}
        own |= {"ckpt_dir": str(tmp_path / folder), "crops_per_case": 2, "logging_file": False}
        try:
            run_workflow(name, "train", interrupt, **sizes, **own, **settings)
        except Killed:
            assert stop
        return torch.load(tmp_path / folder / "last.ckpt", weights_only=True)

    return run


@pytest.mark.parametrize(
    ("name", "num_workers", "cache_rate"),
    [("brats_lora16", 0, 0.0), ("brats_lora16", 0, 1.0), ("brats_lora16", 2, 0.0),
     ("mae_pretrain", 0, 1.0)],
)  # fmt: skip
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(train, name, num_workers, cache_rate):
    settings = {"num_workers": num_workers, "cache_rate": cache_rate}
    whole = train(name, "whole", **settings)
    assert train(name, "cut", stop=True, **settings)["epoch"] == 1
    torch.manual_seed(7)  # a new process is elsewhere in its random numbers
    resumed = train(name, "cut", resume=True, **settings)
    assert resumed["epoch"] == whole["epoch"] == 3
    assert resumed["best_metric"] == whole["best_metric"]
    for key, tensor in whole["network"].items():
        assert torch.equal(tensor, resumed["network"][key]), key
    for number, slots in whole["optimizer"]["state"].items():
        for slot, tensor in slots.items():
            assert torch.equal(tensor, resumed["optimizer"]["state"][number][slot]), slot


def test_epochs_draw_crops_of_their_own(train, run_workflow, monkeypatch):
    """Seeding every epoch must not make all of them the same."""
    from monai.transforms import RandCropByPosNegLabeld

    centres, draw = [], RandCropByPosNegLabeld.randomize

    def remembered(self, *arguments, **keywords):
        draw(self, *arguments, **keywords)
        centres.append(str(self.cropper.centers))

    monkeypatch.setattr(RandCropByPosNegLabeld, "randomize", remembered)
    train("brats_lora16", "models", num_workers=0)
    assert len(set(centres)) > 0.8 * len(centres) > 8


@pytest.fixture
def stopped(root, tasks, tmp_path):
    """A function that starts a long training, sends it a signal after an epoch, and waits."""

    def run(number, whole_group, num_workers):
        flags = {**TINY, "dataset_dir": tasks["brats"], "ckpt_dir": tmp_path / "models",
                 "output_dir": tmp_path / "eval", "epochs": 500, "val_interval": 1,
                 "pretrained": "none", "num_workers": num_workers}  # fmt: skip
        words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        config = root / "bundles" / "brats_lora16" / "configs" / "train.json"
        command = [*["-m", "monai.bundle", "run", "training", "--config_file"], str(config), *words]
        log = tmp_path / "log"
        with log.open("w", encoding="utf-8") as file:
            child = subprocess.Popen(
                [sys.executable, *command], stdout=file, stderr=file, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(root)}, cwd=tmp_path,
            )  # fmt: skip
        while "INFO epoch 2/" not in log.read_text(encoding="utf-8"):
            assert child.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        (os.killpg if whole_group else os.kill)(child.pid, number)
        return child.wait(30), log.read_text(encoding="utf-8"), command

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whole_group", "num_workers"),
    [(signal.SIGINT, True, 2), (signal.SIGTERM, False, 2), (signal.SIGTERM, True, 0)],
)
def test_signal_ends_a_run_with_one_line_and_the_command_that_goes_on(
    stopped, tmp_path, number, whole_group, num_workers
):
    status, text, command = stopped(number, whole_group, num_workers)
    assert status == 128 + number
    said = text[text.rindex("INFO epoch") :].splitlines()[1:]
    (line,) = [each for each in said if each]
    place, way = line.split("; go on with: ")
    assert place.startswith("stopped in epoch ")
    assert shlex.split(way) == ["python", *command, "--resume", "True"]
    assert "Traceback" not in text
    assert not list(tmp_path.rglob("*.draft"))
    assert (tmp_path / "models" / "last.ckpt").is_file()
