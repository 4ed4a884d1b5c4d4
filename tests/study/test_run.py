"""One run: its command lines, its processes, what is skipped, continued, refused, recorded."""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fire import parser
from monai.bundle import ConfigParser

from lora_ext.study import run as module
from lora_ext.study.plan import Run
from lora_ext.study.run import (
    MONAI_BUNDLE,
    as_word,
    check_same_settings,
    commands,
    execute,
    finished,
    overlay,
    run_process,
)

RUN = Run("brats_frozen", "brats", "frozen", False, "brats_frozen", 0, 0, "data", {"epochs": 2})


@pytest.fixture
def start(tmp_path, fake):
    """A function that executes a run below tmp_path/R."""

    def start(run=RUN, watch=lambda line: None):
        check_same_settings([run], tmp_path / "R")
        return execute(run, Path("bundles"), tmp_path / "R", watch)

    return start


def interrupt_after_first_epoch(line):
    if "epoch 1/2" in line:
        raise KeyboardInterrupt


def test_a_run_trains_evaluates_and_is_finished(start, fake, tmp_path):
    lines = []
    assert not finished(RUN, tmp_path / "R")
    record = start(watch=lines.append)
    assert finished(RUN, tmp_path / "R")
    assert fake() == [["brats_frozen", "training", None], ["brats_frozen", "evaluating", None]]
    assert record["status"] == "done"
    assert record["summary"]["pooled_dice"] == 0.25
    assert record["training_cases"] == 4
    assert [point["loss"] for point in record["curve"]] == [1.5, 1.25]
    assert any("epoch 2/2" in line for line in lines)
    folder = tmp_path / "R" / RUN.folder
    assert json.loads((folder / "run.json").read_text(encoding="utf-8")) == record
    assert {p.name for p in (folder / "models").iterdir()} == {"model.pt"}


def test_a_killed_run_goes_on_from_its_checkpoint(start, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_HANG", "brats_frozen training")
    with pytest.raises(KeyboardInterrupt):
        start(watch=interrupt_after_first_epoch)
    folder = tmp_path / "R" / RUN.folder
    assert not (folder / "run.json").exists()
    before = json.loads((folder / "state.json").read_text(encoding="utf-8"))["seconds"]["training"]
    assert before > 0
    monkeypatch.delenv("FAKE_HANG")
    record = start()
    assert [call[1:] for call in fake()] == [
        ["training", None],
        ["training", "True"],
        ["evaluating", None],
    ]
    assert [point["epoch"] for point in record["curve"]] == [1, 2]
    assert record["seconds"]["training"] > before
    assert "--resume" not in record["commands"]["training"]


def test_a_run_killed_before_its_first_checkpoint_starts_anew(start, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_HANG", "brats_frozen training")
    with pytest.raises(KeyboardInterrupt):
        start(watch=interrupt_after_first_epoch)
    (tmp_path / "R" / RUN.folder / "models" / "last.ckpt").unlink()
    monkeypatch.delenv("FAKE_HANG")
    start(replace(RUN, knobs={"epochs": 2, "learning_rate": 0.1}))
    assert [call[1:] for call in fake()][1] == ["training", None]


def test_a_run_whose_evaluation_failed_is_not_trained_again(start, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "brats_frozen evaluating")
    record = start()
    assert record["status"] == "failed"
    assert "evaluating ended with exit status 3" in record["error"]
    assert record["error"].endswith("error: the fake failed")
    assert not finished(RUN, tmp_path / "R")
    monkeypatch.delenv("FAKE_FAIL")
    assert start()["status"] == "done"
    assert [call[1] for call in fake()] == ["training", "evaluating", "evaluating"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"knobs": {"epochs": 3}}, "expected a run with epochs 3, found one with epochs 2"),
        ({"knobs": {"epochs": 2, "amp": False}}, "with amp False, found one with amp its default"),
        ({"knobs": {}}, "with epochs its default, found one with epochs 2"),
        ({"dataset_dir": "other"}, "with dataset_dir .*other, found one with dataset_dir .*data;"),
    ],
)
def test_other_settings_or_data_are_refused_with_the_difference(start, change, sentence):
    start()
    with pytest.raises(ValueError, match=sentence) as caught:
        start(replace(RUN, **change))
    assert "another --out" in str(caught.value)


def test_a_killed_run_with_other_settings_is_refused_too(start, monkeypatch):
    monkeypatch.setenv("FAKE_HANG", "brats_frozen training")
    with pytest.raises(KeyboardInterrupt):
        start(watch=interrupt_after_first_epoch)
    with pytest.raises(ValueError, match="epochs"):
        start(replace(RUN, knobs={"epochs": 3}))


def test_other_rows_of_the_folder_must_have_the_same_settings(start):
    start()
    other = {"row": "prostatex_lora16", "dataset": "prostatex", "bundle": "prostatex_lora16"}
    pretrained = {"epochs": 2, "pretrained": "vit.pt"}
    start(replace(RUN, **other, dataset_dir="prostate", knobs=pretrained))
    with pytest.raises(ValueError, match=r"brats_frozen.*epochs 9, found .*epochs 2"):
        start(replace(RUN, row="brats_lora16", bundle="brats_lora16", knobs={"epochs": 9}))


def test_runs_with_and_without_an_encoder_are_not_mixed_in_a_data_set(start):
    def with_start(pretrained, **change):
        return replace(RUN, knobs={"epochs": 2, "pretrained": pretrained}, **change)

    start(with_start("fold0.pt"))
    start(with_start("fold1.pt", fold=1))
    other = {"row": "prostatex_frozen", "dataset": "prostatex", "bundle": "prostatex_frozen"}
    start(with_start("none", **other))
    with pytest.raises(
        ValueError, match=r"with pretrained none, found one with pretrained fold\d.pt"
    ):
        start(with_start("none", fold=2))
    with pytest.raises(
        ValueError, match=r"with pretrained fold1.pt, found one with pretrained fold0"
    ):
        start(with_start("fold1.pt"))


def test_a_run_that_failed_at_the_start_may_be_tried_with_other_settings(start, monkeypatch):
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
    neighbour.write_text(json.dumps({"a": "b"}), encoding="utf-8")
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
        path.write_text(json.dumps(content), encoding="utf-8")
    other = replace(RUN, seed=1)
    start(other)
    assert json.loads((tmp_path / "R" / other.folder / checked).read_text(encoding="utf-8")) == {
        "a": "b"
    }


KNOBS = {"epochs": 2, "roi_size": [32, 32, 16], "amp": False, "pretrained": None, "device": "cpu"}
LORA = Run("brats_lora32", "brats", "lora32", False, "brats_lora32", 3, 1, "data/brats", KNOBS)
REFERENCE = replace(LORA, row="brats_segresnet", regime="segresnet", reference=True)


def flags_of(argv):
    """The flags of a command line, as fire reads them."""
    values = [parser.DefaultParseValue(word) for word in argv[6::2]]
    return dict(zip((word.removeprefix("--") for word in argv[5::2]), values, strict=True))


@pytest.mark.parametrize("kind", ["training", "evaluating"])
def test_command_lines_are_those_of_a_user(kind):
    argv = commands(LORA, Path("bundles"), Path("R/x"))[kind]
    assert argv[:5] == ["python", "-m", "monai.bundle", "run", kind]
    flags = flags_of(argv)
    files = flags.pop("config_file")
    assert files[0] == "bundles/brats_lora32/configs/train.json"
    assert ("bundles/brats_lora32/configs/evaluate.json" in files) == (kind == "evaluating")
    assert flags == {
        "dataset_dir": "data/brats",
        "ckpt_dir": "R/x/models",
        "output_dir": "R/x/eval",
        "seed": 3,
        "fold": 1,
        **KNOBS,
    }


@pytest.mark.parametrize(
    "value", ["plain/path.pt", "a,b", "12", "True", "it's", 1e-4, None, True, ["FLAIR", "t1gd"], []]
)
def test_a_value_comes_back_from_the_command_line_as_it_was(value):
    back = parser.DefaultParseValue(as_word(value))
    assert back == value
    assert type(back) is type(value)


def test_overlay_of_a_bundle_leaves_its_network_alone():
    assert set(overlay(LORA, Path("R/x"))) == {"+train#handlers"}


def test_overlay_of_a_reference_replaces_the_network_alone(root, tmp_path):
    (tmp_path / "overlay.json").write_text(
        json.dumps(overlay(REFERENCE, tmp_path)), encoding="utf-8"
    )
    train = root / "bundles/brats_lora32/configs/train.json"
    ours, theirs = ConfigParser(), ConfigParser()
    ours.read_config(str(train))
    theirs.read_config([str(train), str(tmp_path / "overlay.json")])
    config, before = theirs.get(), ours.get()
    changed = {key for key in config if config[key] != before.get(key)}
    assert changed == {"network_def", "train", "regime"}
    assert config["regime"] == "baseline"  # so that no encoder is looked for
    assert config["train"]["handlers"][:-1] == before["train"]["handlers"]
    theirs["roi_size"], theirs["feature_size"] = [32, 32, 16], 4
    network = theirs.get_parsed_content("network_def")
    assert network.config["name"] == "segresnet"
    assert (network.config["in_channels"], network.config["out_channels"]) == (4, 3)


LOOP = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


@pytest.fixture
def python_code(monkeypatch):
    """Children run the code that follows the command's first words."""
    monkeypatch.setattr(module, "LAUNCHER", (sys.executable, "-c"))
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)


def test_output_and_errors_go_to_the_log_and_whole_lines_to_the_watcher(tmp_path, python_code):
    code = (
        "import sys, time\nprint('be', end='', flush=True); time.sleep(0.2); print('gin')\n"
        "print('bad', file=sys.stderr); sys.exit(4)"
    )
    seen = []
    log = tmp_path / "new" / "x.log"
    assert run_process([*MONAI_BUNDLE, code], log, seen.append) == 4
    assert sorted(seen) == ["bad", "begin"]
    assert sorted(log.read_text(encoding="utf-8").splitlines()) == ["bad", "begin"]


def test_a_log_is_begun_anew_or_gone_on_with_and_old_lines_are_not_retold(tmp_path, python_code):
    log, seen = tmp_path / "x.log", []
    for append in (False, False, True):
        run_process([*MONAI_BUNDLE, "print('line')"], log, seen.append, append=append)
    assert log.read_text(encoding="utf-8") == "line\n" * 2
    assert seen == ["line"] * 3


def test_an_interruption_ends_the_child(tmp_path, python_code):
    pids = []

    def interrupt(line):
        pids.append(int(line))
        raise KeyboardInterrupt

    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        run_process([*MONAI_BUNDLE, LOOP], tmp_path / "x.log", interrupt)
    assert time.perf_counter() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_child_that_does_not_listen_is_killed(tmp_path, python_code, monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + LOOP

    def interrupt(line):
        raise KeyboardInterrupt

    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        run_process([*MONAI_BUNDLE, deaf], tmp_path / "x.log", interrupt)
    assert time.perf_counter() - began < 10
