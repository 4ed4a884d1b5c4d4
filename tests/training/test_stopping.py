"""The command that a stopped run names; that it is named at all is tested with the bundles."""

import signal

import pytest

from lora_ext.training.stopping import end_by_signals, go_on

REST = ["run", "training", "--config_file", "['a b.json','c.json']", "--epochs", "3"]


@pytest.mark.parametrize(
    "flags",
    [[], ["--resume", "False"], ["--resume=False"], ["--overwrite", "True"], ["--overwrite"],
     ["--overwrite=True", "--resume", "False"]],
)  # fmt: skip
def test_the_command_is_the_same_but_resumes(flags):
    shown = "python -m monai.bundle run training --config_file '['\"'\"'a b.json'\"'\"','\"'\"'c.js"
    for arguments in ([*REST, *flags], [*REST[:4], *flags, *REST[4:]]):
        command = go_on(arguments, resumable=True)
        assert command.startswith(f"go on with: {shown}")
        assert command.endswith("--epochs 3 --resume True")
        assert command.count("--resume") == 1
        assert "--overwrite" not in command


def test_what_cannot_be_resumed_is_started_again():
    assert go_on(["run", "--x", "1"], False) == "start again with: python -m monai.bundle run --x 1"


def test_under_torchrun_the_command_is_torchruns(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert go_on(["run"], True) == "go on with: torchrun ... -m monai.bundle run --resume True"


def test_other_programs_keep_their_handling_of_signals():
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    end_by_signals(resume=False)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
