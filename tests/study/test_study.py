"""The whole verb: with a quick stand-in for MONAI, and once for real."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_ext.networks.encoder import ChannelEncoder
from lora_ext.phantoms import write_phantoms
from lora_ext.study import run_study
from lora_ext.study import study as module
from lora_ext.study.plan import Run
from lora_ext.study.study import Part, Progress, command_line, exit_if_failed, only_study, run_parts

NONE = "none"
TINY = {
    "roi_size": (32, 32, 16),
    "feature_size": 4,
    "hidden_size": 24,
    "mlp_dim": 32,
    "num_layers": 4,
    "num_heads": 2,
    "num_workers": 0,
    "sw_overlap": 0.0,
    "batch_size": 2,
    "crops_per_case": 1,
}


@pytest.fixture
def written(monkeypatch):
    """What the tables and plots were called with; stand-ins, for these have tests of their own."""
    written = []
    for name in ("write_tables", "write_plots"):

        def write(results, out, name=name):
            written.append((name, len(results["runs"]), out))

        monkeypatch.setattr(module, name, write)
    return written


def results():
    return json.loads(Path("R/results.json").read_text(encoding="utf-8"))


def test_a_study_runs_everything_once_and_writes_the_tables(fake, written, capsys):
    for _ in range(2):
        run_study(
            "data", "R", "brats_frozen,brats_lora16", (0, 1), reference="segresnet", pretrained=NONE
        )
    rows = ["brats_frozen", "brats_lora16", "brats_segresnet"]
    assert [row for row, kind, _ in fake() if kind == "training"] == rows * 2
    assert [(r["row"], r["seed"]) for r in results()["runs"]] == [
        (row, seed) for row in rows for seed in (0, 1)
    ]
    assert written == [("write_tables", 6, Path("R")), ("write_plots", 6, Path("R"))] * 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 + 2
    assert lines[0].startswith("1/6 brats_frozen seed 0 fold 0: pooled_dice 0.2500, ")
    assert lines[0].endswith(" left")
    assert lines[-1] == "results.json, tables and plots are in R"


def test_a_failed_run_does_not_end_the_others_and_is_tried_again(
    fake, written, capsys, monkeypatch
):
    monkeypatch.setenv("FAKE_FAIL", "brats_frozen training")
    with pytest.raises(SystemExit) as caught:
        run_study("data", "R", "brats_frozen,brats_lora16", pretrained=NONE)
    assert caught.value.code == 1
    states = {r["row"]: r["status"] for r in results()["runs"]}
    assert states == {"brats_frozen": "failed", "brats_lora16": "done"}
    said = capsys.readouterr()
    assert "FAILED" in said.out
    assert "error: the fake failed" in said.out
    assert "runs/brats_frozen/seed0_fold0" in said.err
    monkeypatch.delenv("FAKE_FAIL")
    run_study("data", "R", "brats_frozen,brats_lora16", pretrained=NONE)
    assert {r["status"] for r in results()["runs"]} == {"done"}
    assert [row for row, *_ in fake()].count("brats_lora16") == 2  # one training, one evaluation


def test_no_tables_are_tried_when_every_run_failed(fake, written, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "brats_frozen training")
    with pytest.raises(SystemExit):
        run_study("data", "R", "brats_frozen", pretrained=NONE)
    assert written == []
    assert results()["device"] == "unknown"


def test_earlier_rows_stay_in_the_results(fake, written):
    run_study("data", "R", "brats_lora16", pretrained=NONE)
    run_study("data", "R", "brats_frozen", pretrained=NONE)
    assert [r["row"] for r in results()["runs"]] == ["brats_frozen", "brats_lora16"]


def test_bad_requests_end_before_anything_is_run(fake, written):
    with pytest.raises(ValueError, match="unknown setting --epoch"):
        run_study("data", "R", "brats_frozen", epoch=3)
    assert not Path("R").exists()


SIZES = {"hidden_size": 64, "mlp_dim": 32, "num_layers": 4, "num_heads": 1}


def write_encoder(name):
    """A small ViT, whose sizes a study passes on."""
    encoder = ChannelEncoder(("volume",), (32, 32, 16), **SIZES)
    torch.save(encoder.state_dict(), name)


def test_a_missing_encoder_ends_before_anything_is_run(fake):
    write_encoder("pre_fold0.pt")
    with pytest.raises(ValueError, match=r"brats_lora16 seed 0 fold 1, found no file pre_fold1.pt"):
        run_study("data", "R", "brats_lora16", folds=(0, 1), pretrained="pre_fold{fold}.pt")
    assert not Path("R").exists()


def test_without_an_encoder_the_bundle_looks_itself_and_the_record_tells_what_it_found(
    fake, written
):
    run_study("data", "R", "brats_baseline,brats_frozen")
    assert [record["encoder"] for record in results()["runs"]] == ["random", "random"]
    assert not any("--pretrained" in r["commands"]["training"] for r in results()["runs"])
    write_encoder("vit.pt")
    run_study("data", "S", "brats_frozen", pretrained="vit.pt")
    assert (
        json.loads(Path("S/results.json").read_text(encoding="utf-8"))["runs"][0]["encoder"]
        == "a.pt (sha256 0)"
    )


def test_random_weights_are_marked_on_every_page_that_a_study_writes(fake):
    run_study("data", "R", "brats_baseline,brats_frozen")
    for name in ("table1.md", "table2.md", "comparisons.md"):
        text = Path("R", name).read_text(encoding="utf-8")
        assert "Frozen (random encoder)" in text
        assert "Baseline (random encoder)" not in text
        assert "Encoder: Frozen started from random weights." in text


def test_every_run_gets_its_encoder_on_its_command_line(fake, written):
    for fold in (0, 1):
        write_encoder(f"brats_fold{fold}.pt")
    pattern = "{dataset}_fold{fold}.pt"
    run_study("data", "R", "brats_baseline,brats_frozen", folds=(0, 1), pretrained=pattern)
    words = [r["commands"]["training"] for r in results()["runs"]]
    given = [w[w.index("--pretrained") + 1] if "--pretrained" in w else None for w in words]
    assert given == [None, None, "brats_fold0.pt", "brats_fold1.pt"]
    assert all(w[w.index("--hidden_size") + 1] == "64" for w in words)  # the file's, for all
    for fold in (0, 1):
        Path(f"brats_fold{fold}.pt").unlink()  # finished runs need it no more
    run_study("data", "R", "brats_baseline,brats_frozen", folds=(0, 1), pretrained=pattern)


def test_starting_without_an_encoder_is_passed_on(fake, written):
    run_study("data", "R", "brats_frozen", pretrained="None", training_cases=4)
    (record,) = results()["runs"]
    assert record["knobs"] == {"pretrained": "none", "training_cases": 4}
    words = record["commands"]["training"]
    assert words[words.index("--pretrained") + 1] == "none"
    assert words[words.index("--training_cases") + 1] == "4"


def test_the_command_line_is_recorded_as_it_could_be_typed():
    flags = {"bundles": ("a", "b"), "seeds": (0, 1), "folds": None}
    knobs = {"roi_size": (32, 32, 16), "pretrained": None}
    assert command_line("study", "my data", "R", flags, knobs) == (
        "python -m lora_ext study --data_dir 'my data' --out R --bundles a,b --seeds 0,1 "
        "--roi_size '(32, 32, 16)' --pretrained None"
    )


RUN = Run("brats_baseline", "brats", "baseline", False, "brats_baseline", 0, 0, "data", {})
OTHER = replace(RUN, seed=1)


@pytest.fixture
def two(fake):
    """Two parts of two runs each."""
    return [Part(Path("R") / name, (RUN, OTHER), name) for name in ("a", "b")]


def test_first_runs_of_all_parts_come_first_and_nothing_is_run_twice(two, capsys):
    for _ in range(2):
        results = run_parts(two, Path("R"), "command")
    titles = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert titles == [
        f"{place}/4 {part} brats_baseline seed {seed} fold 0"
        for place, (seed, part) in enumerate(((0, "a"), (0, "b"), (1, "a"), (1, "b")), start=1)
    ]
    for part, own in zip(two, results, strict=True):
        assert [record["seed"] for record in own["runs"]] == [0, 1]
        assert (
            json.loads((part.folder / "results.json").read_text(encoding="utf-8"))["runs"]
            == own["runs"]
        )


def test_a_failure_in_one_part_is_told_with_its_folder(two, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_FAIL", "a training")
    results = run_parts(two, Path("R"), "command")
    with pytest.raises(SystemExit) as caught:
        exit_if_failed(two, results)
    assert caught.value.code == 1
    assert "failed: R/a/runs/brats_baseline/seed1_fold0; the same" in capsys.readouterr().err
    assert [r["status"] for own in results for r in own["runs"]] == ["failed"] * 2 + ["done"] * 2
    exit_if_failed(two[1:], results[1:])


def test_a_stopped_call_leaves_what_is_done_and_goes_on(two, monkeypatch, capsys):
    execute, begun = module.execute, []

    def stop_at_the_second(run, *rest):
        begun.append(run.seed)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return execute(run, *rest)

    monkeypatch.setattr(module, "execute", stop_at_the_second)
    with pytest.raises(SystemExit) as caught:
        run_parts(two, Path("R"), "command")
    assert caught.value.code == 130
    assert "the same command resumes" in capsys.readouterr().err
    run_parts(two, Path("R"), "command")
    assert begun == [0, 0, 0, 1, 1]
    assert capsys.readouterr().out.startswith("2/4 b ")


def test_the_root_is_locked_for_all_parts(two):
    with only_study(Path("R")), pytest.raises(ValueError, match="another study"):
        run_parts(two, Path("R"), "command")


def test_every_part_is_checked_before_any_is_run(two):
    run_parts(two[1:], Path("R"), "command")
    changed = [Part(p.folder, [replace(RUN, knobs={"epochs": 3})], p.name) for p in two]
    with pytest.raises(ValueError, match="epochs"):
        run_parts(changed, Path("R"), "command")
    assert not (Path("R") / "a").exists()


def test_a_second_study_in_the_same_folder_is_refused_until_the_first_ends(tmp_path):
    with (
        only_study(tmp_path / "R"),
        pytest.raises(ValueError, match="another study"),
        only_study(tmp_path / "R"),
    ):
        pass
    with only_study(tmp_path / "R"), only_study(tmp_path / "other"):
        pass


def test_a_child_that_outlives_its_study_keeps_the_folder(tmp_path):
    with only_study(tmp_path) as keep_open:
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=keep_open
        )
    with pytest.raises(ValueError, match="that it left behind"), only_study(tmp_path):
        pass
    child.communicate(b"\n")
    with only_study(tmp_path):
        pass


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
        progress = Progress(4, 1)
        progress.begin("brats_frozen seed 2 fold 1")
        for line in (*LINES, "something else"):
            progress.follow(line)
        progress.end(record)
        progress.bar.close()
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


@pytest.mark.slow
def test_a_real_study_is_killed_and_goes_on(root, tmp_path, written, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.chdir(tmp_path)  # no bundles/ here: the study writes them
    write_phantoms("brats", "data/brats", cases=5, size=(48, 48, 24), test_cases=1)
    study = {"bundles": "brats_lora16", "reference": "segresnet", "epochs": 6, "val_interval": 1}
    study["pretrained"] = NONE
    code = "import sys, json; from lora_ext.study import run_study; "
    code += "run_study('data', 'R', **json.loads(sys.argv[1]))"
    child = subprocess.Popen([sys.executable, "-c", code, json.dumps(study | TINY)])
    run = Path("R/runs/brats_lora16/seed0_fold0")
    wait_for(run / "models" / "last.ckpt")
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(30) == 130
    assert not (run / "run.json").exists()

    run_study("data", "R", **study, **TINY)
    assert (Path("R") / "bundles" / "brats_lora16" / "configs" / "train.json").is_file()
    assert "resumed from" in (run / "training.log").read_text(encoding="utf-8")
    lora, segresnet = results()["runs"]
    for record in (lora, segresnet):
        assert record["status"] == "done"
        assert 0 <= record["summary"]["pooled_dice"] <= 1
        assert [point["epoch"] for point in record["curve"]] == list(range(1, 7))
        assert record["peak_memory_mb"] > 50
        # 1 mm phantoms: evaluation repeats the best validation, which the log has to 4 digits
        best = max(point["val_pooled_dice"] for point in record["curve"])
        assert record["summary"]["pooled_dice"] == pytest.approx(best, abs=1e-4)
    assert lora["parameters"]["adapters"] > 0
    assert set(segresnet["parameters"]) == {"total", "trainable"}
    assert segresnet["parameters"]["total"] > 4_000_000
    assert results()["device"] in ("cpu", *cuda_names())
    assert not list(Path("R/bundles").glob("*/models"))
    assert not list(Path("R/bundles").glob("*/eval"))


def wait_for(path, seconds=120):
    began = time.perf_counter()
    while not path.exists():
        assert time.perf_counter() - began < seconds, f"{path} did not appear"
        time.sleep(0.1)


def cuda_names():
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def test_file_that_changed_after_a_finished_run_is_named(tmp_path, capsys):
    data = write_phantoms("brats", tmp_path / "data", cases=2, size=(16, 16, 16), test_cases=0)
    run = replace(RUN, dataset_dir=str(data))
    ended = tmp_path / "R" / run.folder / "run.json"
    ended.parent.mkdir(parents=True)
    ended.write_text("{}", encoding="utf-8")
    capsys.readouterr()
    module._tell_changed([(Part(tmp_path / "R", [run]), run)])
    assert capsys.readouterr().err == ""
    label = sorted((data / "labelsTr").glob("*.nii.gz"))[1]
    os.utime(label, (time.time() + 9, time.time() + 9))
    module._tell_changed([(Part(tmp_path / "R", [run]), run)])
    assert f"warning: {label} was changed after {ended.parent} had" in capsys.readouterr().err
