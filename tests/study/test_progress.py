"""What a study says while it runs."""

import io
import sys

import pytest

from lora_ext.study.plan import Run
from lora_ext.study.progress import StudyProgress

RUN = Run("brats_frozen", "brats", "frozen", False, "brats_frozen", 2, 1, "data", {})
RECORD = {
    "row": "brats_frozen",
    "seed": 2,
    "fold": 1,
    "status": "done",
    "error": None,
    "seconds": {"training": 90.0, "evaluating": 30.0},
    "summary": {"pooled_dice": 0.81234},
}
LINES = (
    "INFO epoch 3/10: loss 1.2345, learning rate 0.005, 3.0 s",
    "INFO epoch 3/10: validation pooled_dice 0.4321 (best 0.4321 in epoch 3), mean_dice 0.4, TC",
)


@pytest.fixture
def say(monkeypatch, capsys):
    """A function that follows one run of four and returns standard output and error."""

    def say(terminal, record=RECORD):
        screen = io.StringIO()
        screen.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stderr", screen)
        progress = StudyProgress(4, 1)
        progress.begin(RUN)
        for line in (*LINES, "something else"):
            progress.follow(line)
        progress.end(record)
        progress.close()
        return capsys.readouterr().out, screen.getvalue()

    return say


def test_on_a_terminal_the_bar_shows_the_run_and_its_latest_epoch(say):
    _, bar = say(True)
    assert "brats_frozen seed 2 fold 1" in bar
    assert "epoch 3/10, loss 1.2345, validation pooled_dice 0.4321" in bar
    assert "1.3/4 runs" in bar  # one before, three tenths of this one
    assert "2.0/4 runs" in bar


def test_elsewhere_there_is_one_line_per_finished_run(say):
    out, bar = say(False)
    assert bar == ""
    line = "2/4 brats_frozen seed 2 fold 1: pooled_dice 0.8123, 2.0 min, 00:00 left\n"
    assert out == line


def test_a_failed_run_tells_its_reason(say):
    error = "training ended with exit status 1\nTraceback\nerror: no such file\n(X=1 shows where)"
    out, _ = say(False, RECORD | {"status": "failed", "error": error, "summary": None})
    assert "FAILED after 2.0 min (error: no such file)" in out


def test_a_part_is_named_before_its_run(capsys):
    progress = StudyProgress(2, 0)
    progress.begin(RUN, "rank4_classical")
    progress.end(RECORD)
    progress.close()
    assert capsys.readouterr().out.startswith("1/2 rank4_classical brats_frozen seed 2 fold 1: ")
