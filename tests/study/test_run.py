"""One run: what is skipped, continued, refused and recorded, with a quick stand-in for MONAI."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lora_ext.study import process
from lora_ext.study.plan import Run
from lora_ext.study.run import check_settings, execute, finished

RUN = Run("brats_frozen", "brats", "frozen", False, "brats_frozen", 0, 0, "data", {"epochs": 2})
FAKE = Path(__file__).with_name("fake_bundle.py")


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A function that tells which processes were run: row, process, --resume."""
    log = tmp_path / "calls"
    monkeypatch.setattr(process, "LAUNCHER", (sys.executable, str(FAKE)))
    monkeypatch.setattr(process, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("FAKE_CALLS", str(log))
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture
def start(tmp_path, calls):
    """A function that executes a run below tmp_path/R."""

    def start(run=RUN, watch=lambda line: None):
        check_settings([run], tmp_path / "R")
        return execute(run, Path("bundles"), tmp_path / "R", watch)

    return start


def interrupt_after_first_epoch(line):
    if "epoch 1/2" in line:
        raise KeyboardInterrupt


def test_a_run_trains_evaluates_and_is_finished(start, calls, tmp_path):
    lines = []
    assert not finished(RUN, tmp_path / "R")
    record = start(watch=lines.append)
    assert finished(RUN, tmp_path / "R")
    assert calls() == [["brats_frozen", "training", None], ["brats_frozen", "evaluating", None]]
    assert record["status"] == "done"
    assert record["summary"]["pooled_dice"] == 0.25
    assert record["training_cases"] == 4
    assert [point["loss"] for point in record["curve"]] == [1.5, 1.25]
    assert any("epoch 2/2" in line for line in lines)
    folder = tmp_path / "R" / RUN.folder
    assert json.loads((folder / "run.json").read_text()) == record
    assert {p.name for p in (folder / "models").iterdir()} == {"model.pt"}


def test_a_killed_run_goes_on_from_its_checkpoint(start, calls, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_HANG", "brats_frozen training")
    with pytest.raises(KeyboardInterrupt):
        start(watch=interrupt_after_first_epoch)
    folder = tmp_path / "R" / RUN.folder
    assert not (folder / "run.json").exists()
    before = json.loads((folder / "state.json").read_text())["seconds"]["training"]
    assert before > 0
    monkeypatch.delenv("FAKE_HANG")
    record = start()
    assert [call[1:] for call in calls()] == [
        ["training", None],
        ["training", "True"],
        ["evaluating", None],
    ]
    assert [point["epoch"] for point in record["curve"]] == [1, 2]
    assert record["seconds"]["training"] > before
    assert "--resume" not in record["commands"]["training"]


def test_a_run_killed_before_its_first_checkpoint_starts_anew(start, calls, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_HANG", "brats_frozen training")
    with pytest.raises(KeyboardInterrupt):
        start(watch=interrupt_after_first_epoch)
    (tmp_path / "R" / RUN.folder / "models" / "last.ckpt").unlink()
    monkeypatch.delenv("FAKE_HANG")
    start(replace(RUN, knobs={"epochs": 2, "learning_rate": 0.1}))
    assert [call[1:] for call in calls()][1] == ["training", None]


def test_a_run_whose_evaluation_failed_is_not_trained_again(start, calls, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "brats_frozen evaluating")
    record = start()
    assert record["status"] == "failed"
    assert "evaluating ended with exit status 3" in record["error"]
    assert record["error"].endswith("error: the fake failed")
    assert not finished(RUN, tmp_path / "R")
    monkeypatch.delenv("FAKE_FAIL")
    assert start()["status"] == "done"
    assert [call[1] for call in calls()] == ["training", "evaluating", "evaluating"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"knobs": {"epochs": 3}}, "was run with epochs 2, and epochs 3 is asked for"),
        ({"knobs": {"epochs": 2, "amp": False}}, "run with amp its default, and amp False is"),
        ({"knobs": {}}, "was run with epochs 2, and epochs its default is asked for"),
        ({"dataset_dir": "other"}, "dataset_dir .*data, and dataset_dir .*other is asked for"),
    ],
)
def test_other_knobs_or_data_are_refused_with_the_difference(start, change, sentence):
    start()
    with pytest.raises(ValueError, match=sentence) as caught:
        start(replace(RUN, **change))
    assert "another --out" in str(caught.value)


def test_a_killed_run_with_other_knobs_is_refused_too(start, monkeypatch):
    monkeypatch.setenv("FAKE_HANG", "brats_frozen training")
    with pytest.raises(KeyboardInterrupt):
        start(watch=interrupt_after_first_epoch)
    with pytest.raises(ValueError, match="epochs"):
        start(replace(RUN, knobs={"epochs": 3}))


def test_other_rows_of_the_folder_must_have_the_same_knobs(start):
    start()
    other = {"row": "prostatex_lora16", "dataset": "prostatex", "bundle": "prostatex_lora16"}
    pretrained = {"epochs": 2, "pretrained": "vit.pt"}
    start(replace(RUN, **other, dataset_dir="prostate", knobs=pretrained))
    with pytest.raises(ValueError, match=r"brats_frozen.*epochs 2, and epochs 9"):
        start(replace(RUN, row="brats_lora16", bundle="brats_lora16", knobs={"epochs": 9}))


def test_runs_with_and_without_an_encoder_are_not_mixed_in_a_data_set(start):
    def with_start(pretrained, **change):
        return replace(RUN, knobs={"epochs": 2, "pretrained": pretrained}, **change)

    start(with_start("fold0.pt"))
    start(with_start("fold1.pt", fold=1))
    other = {"row": "prostatex_frozen", "dataset": "prostatex", "bundle": "prostatex_frozen"}
    start(with_start("none", **other))
    with pytest.raises(
        ValueError, match=r"with pretrained fold\d.pt, and pretrained none is asked"
    ):
        start(with_start("none", fold=2))
    with pytest.raises(ValueError, match=r"pretrained fold0.pt, and pretrained fold1.pt is asked"):
        start(with_start("fold1.pt"))


def test_a_run_that_failed_at_the_start_may_be_tried_with_other_knobs(start, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "brats_frozen training")
    assert start()["status"] == "failed"
    monkeypatch.delenv("FAKE_FAIL")
    record = start(replace(RUN, knobs={"epochs": 2, "batch_size": 1}))
    assert record["status"] == "done"
    assert record["knobs"]["batch_size"] == 1


def test_cases_that_a_neighbouring_study_below_the_same_root_checked_are_taken_over(
    start, tmp_path
):
    checked = f"runs/{RUN.row}/seed0_fold0/eval/checked_cases.json"
    neighbour = tmp_path / "root" / "rank4" / checked
    neighbour.parent.mkdir(parents=True)
    neighbour.write_text(json.dumps({"a": "b"}))
    for name, root in (("rank8", tmp_path / "root"), ("alone", None)):
        out = tmp_path / "root" / name
        execute(RUN, Path("bundles"), out, print, root=root)
        assert (out / checked).is_file() == (root is not None)


def test_cases_that_another_run_of_the_data_set_checked_are_not_checked_again(start, tmp_path):
    start()
    checked = "eval/checked_cases.json"
    for row, content in (("brats_frozen", {"a": "b"}), ("prostatex_frozen", {"a": "b", "c": "d"})):
        path = tmp_path / "R/runs" / row / "seed0_fold0" / checked
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    other = replace(RUN, seed=1)
    start(other)
    assert json.loads((tmp_path / "R" / other.folder / checked).read_text()) == {"a": "b"}
