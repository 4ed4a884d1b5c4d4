"""The whole verb: with a quick stand-in for MONAI, and once for real."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lora_ext.phantoms import write_phantoms
from lora_ext.study import process, run_study
from lora_ext.study.study import command_line

FAKE = Path(__file__).with_name("fake_bundle.py")
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
    for module, name in (("tables", "write_tables"), ("plots", "write_plots")):

        def write(results, out, name=name):
            written.append((name, len(results["runs"]), out))

        stand_in = SimpleNamespace(**{name: write})
        monkeypatch.setitem(sys.modules, f"lora_ext.study.{module}", stand_in)
    return written


@pytest.fixture
def fake(tmp_path, monkeypatch, written):
    """A workplace with a data set, and the stand-in for MONAI; tells the rows that were run."""
    (tmp_path / "data" / "brats").mkdir(parents=True)
    (tmp_path / "data" / "brats" / "dataset.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "LAUNCHER", (sys.executable, str(FAKE)))
    monkeypatch.setattr(process, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    return lambda: [json.loads(line)[:2] for line in Path("calls").read_text().splitlines()]


def results():
    return json.loads(Path("R/results.json").read_text())


def test_a_study_runs_everything_once_and_writes_the_tables(fake, written, capsys):
    for _ in range(2):
        run_study(
            "data", "R", "brats_frozen,brats_lora16", (0, 1), reference="segresnet", pretrained=NONE
        )
    rows = ["brats_frozen", "brats_lora16", "brats_segresnet"]
    assert [row for row, kind in fake() if kind == "training"] == rows * 2
    assert [(r["row"], r["seed"]) for r in results()["runs"]] == [
        (row, seed) for row in rows for seed in (0, 1)
    ]
    assert written == [("write_tables", 6, Path("R")), ("write_plots", 6, Path("R"))] * 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 + 2
    assert lines[0].startswith("1/6 brats_frozen seed 0 fold 0: pooled_dice 0.2500, ")
    assert lines[0].endswith(" left")
    assert lines[-1] == "results.json, tables and plots are in R"


def test_a_failed_run_does_not_end_the_others_and_is_tried_again(fake, capsys, monkeypatch):
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
    assert [row for row, _ in fake()].count("brats_lora16") == 2  # one training, one evaluation


def test_no_tables_are_tried_when_every_run_failed(fake, written, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "brats_frozen training")
    with pytest.raises(SystemExit):
        run_study("data", "R", "brats_frozen", pretrained=NONE)
    assert written == []
    assert results()["device"] == "unknown"


def test_earlier_rows_stay_in_the_results(fake):
    run_study("data", "R", "brats_lora16", pretrained=NONE)
    run_study("data", "R", "brats_frozen", pretrained=NONE)
    assert [r["row"] for r in results()["runs"]] == ["brats_frozen", "brats_lora16"]


def test_bad_requests_end_before_anything_is_run(fake):
    with pytest.raises(ValueError, match="unknown knob --epoch"):
        run_study("data", "R", "brats_frozen", epoch=3)
    assert not Path("R").exists()


def test_no_encoder_or_a_missing_one_ends_before_anything_is_run(fake):
    with pytest.raises(ValueError, match=r"brats_frozen starts .*; pass --pretrained FILE, or"):
        run_study("data", "R", "brats_baseline,brats_frozen")
    Path("pre_fold0.pt").touch()
    with pytest.raises(ValueError, match=r"found no file pre_fold1.pt, which brats_lora16 seed 0"):
        run_study("data", "R", "brats_lora16", folds=(0, 1), pretrained="pre_fold{fold}.pt")
    assert not Path("R").exists()


def test_every_run_gets_its_encoder_on_its_command_line(fake):
    for fold in (0, 1):
        Path(f"brats_fold{fold}.pt").touch()
    pattern = "{dataset}_fold{fold}.pt"
    run_study("data", "R", "brats_baseline,brats_frozen", folds=(0, 1), pretrained=pattern)
    words = [r["commands"]["training"] for r in results()["runs"]]
    given = [w[w.index("--pretrained") + 1] if "--pretrained" in w else None for w in words]
    assert given == [None, None, "brats_fold0.pt", "brats_fold1.pt"]
    for fold in (0, 1):
        Path(f"brats_fold{fold}.pt").unlink()  # finished runs need it no more
    run_study("data", "R", "brats_baseline,brats_frozen", folds=(0, 1), pretrained=pattern)


def test_starting_without_an_encoder_is_passed_on(fake):
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
    assert "resumed from" in (run / "training.log").read_text()
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
