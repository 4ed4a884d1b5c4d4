"""The whole verb: with a quick stand-in for MONAI, and once for real."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lora_ext import __main__ as command
from lora_ext.phantoms import write_phantoms
from lora_ext.study import process, run_ablation
from lora_ext.study.commands import as_word

FAKE = Path(__file__).with_name("fake_bundle.py")
WRITTEN = ["ablation.json", "ablation.md", "ablation.png"]
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
SMALL = {"ranks": (4, 32), "placements": "qkv,out_proj", "pretrained": "none"}
VARIANTS = [
    "rank4_rank_stabilised", "rank4_classical", "rank32_rank_stabilised", "rank32_classical",
    "rank32_attention",
]  # fmt: skip


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A workplace with a data set, and the stand-in for MONAI; tells how many processes ran."""
    (tmp_path / "data" / "brats").mkdir(parents=True)
    (tmp_path / "data" / "brats" / "dataset.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "LAUNCHER", (sys.executable, str(FAKE)))
    monkeypatch.setattr(process, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    return lambda: len(Path("calls").read_text().splitlines())


def summary():
    return json.loads(Path("R/ablation.json").read_text())


def test_every_variant_runs_once_with_its_own_settings(fake, capsys):
    for _ in range(2):
        run_ablation("data", "R", seeds=(0, 1), **SMALL)
    assert fake() == 5 * 2 * 2  # variants, seeds, training and evaluation
    assert [row["name"] for row in summary()["variants"]] == VARIANTS
    for row in summary()["variants"]:
        records = json.loads((Path("R") / row["name"] / "results.json").read_text())["runs"]
        assert [record["seed"] for record in records] == row["seeds"] == [0, 1]
        for record in records:
            assert record["knobs"] == {
                "pretrained": "none",
                "lora_rank": row["rank"],
                "lora_scaling": row["scaling"],
                "lora_targets": row["targets"],
            }
            words = record["commands"]["training"]
            assert words[words.index("--lora_targets") + 1] == str(row["targets"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1/10 rank4_rank_stabilised brats_lora32 seed 0 fold 0: pooled_dice")
    assert lines[-1] == "ablation.json, ablation.md and ablation.png are in R"
    assert sorted(p.name for p in Path("R").iterdir() if p.is_file()) == [".lock", *WRITTEN]


def test_the_command_line_gives_what_the_recorded_one_gives_again(fake, monkeypatch):
    typed = "--data_dir data --out R --ranks 4 --placements qkv,out_proj --epochs 2"
    typed += " --pretrained none"
    monkeypatch.setattr(sys, "argv", ["lora_ext", "ablation", *typed.split()])
    command.main()
    before = summary()
    assert [row["name"] for row in before["variants"]] == [*VARIANTS[:2], "rank32_attention"]
    again = shlex.split(before["command"])
    assert again[:3] == ["python", "-m", "lora_ext"]
    monkeypatch.setattr(sys, "argv", again[2:])
    command.main()
    assert summary() | {"created": ""} == before | {"created": ""}
    assert fake() == 3 * 2


def test_a_failed_variant_does_not_end_the_others_and_is_tried_again(fake, capsys, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "rank4_classical training")
    with pytest.raises(SystemExit) as caught:
        run_ablation("data", "R", **SMALL)
    assert caught.value.code == 1
    assert [row["failed"] for row in summary()["variants"]] == [0, 1, 0, 0, 0]
    assert "failed: R/rank4_classical/runs/brats_lora32" in capsys.readouterr().err
    page = Path("R/ablation.md").read_text(encoding="utf-8")
    assert "- `rank4_classical: brats_lora32`, seed 0, fold 0: " in page
    monkeypatch.delenv("FAKE_FAIL")
    run_ablation("data", "R", **SMALL)
    assert [row["failed"] for row in summary()["variants"]] == [0] * 5
    assert fake() == 4 * 2 + 1 + 2


def test_when_every_run_failed_nothing_is_drawn(fake, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "brats_lora32 training")
    with pytest.raises(SystemExit):
        run_ablation("data", "R", **SMALL)
    assert [row["runs"] for row in summary()["variants"]] == [0] * 5
    assert not Path("R/ablation.md").exists()


def test_another_bundle_in_the_same_folder_does_not_mix_in(fake):
    run_ablation("data", "R", 4, "classical", "", "brats_lora16", pretrained="none")
    run_ablation("data", "R", 4, "classical", "", "brats_lora32", seeds=(1, 2), pretrained="none")
    (row,) = summary()["variants"]
    assert row["seeds"] == [1, 2]


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"lora_rank": 8}, "--lora_rank; an ablation varies it, see --ranks"),
        ({"lora_scaling": "classical"}, "--lora_scaling; an ablation varies it, see --scalings"),
        ({"lora_targets": ["qkv"]}, "--lora_targets; an ablation varies it, see --placements"),
        ({"epoch": 8}, "unknown knob --epoch; known are"),
        ({"bundle": "brats_frozen"}, "bundle: found 'brats_frozen'"),
        ({"pretrained": None}, "brats_lora32 starts from .* pass --pretrained FILE, or"),
        ({"pretrained": "vit.pt"}, "found no file vit.pt"),
    ],
)
def test_bad_requests_end_before_anything_is_run(fake, knobs, sentence):
    with pytest.raises(ValueError, match=re.compile(sentence)):
        run_ablation("data", "R", **knobs)
    assert not Path("R").exists()


@pytest.mark.slow
def test_a_real_ablation_is_killed_and_goes_on(root, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.chdir(tmp_path)
    write_phantoms("brats", "data/brats", cases=5, size=(48, 48, 24), test_cases=1)
    settings = {"ranks": 4, "placements": "", "epochs": 4, "val_interval": 2, "pretrained": "none"}
    flags = [word for k, v in (settings | TINY).items() for word in (f"--{k}", as_word(v))]
    argv = [sys.executable, "-m", "lora_ext", "ablation", "--data_dir", "data", "--out", "R"]
    child = subprocess.Popen([*argv, *flags])
    last = Path("R/rank4_rank_stabilised/runs/brats_lora32/seed0_fold0/models/last.ckpt")
    wait_for(last, child)
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(30) == 130

    run_ablation("data", "R", **settings, **TINY)
    assert "resumed from" in (last.parents[1] / "training.log").read_text()
    stabilised, classical = summary()["variants"]
    for row, scale in ((stabilised, 4.0), (classical, 2.0)):  # 8 / sqrt(4) and 8 / 4
        assert row["runs"] == 1
        assert row["scale"] == scale
        assert 0 <= row["dice"]["pooled_dice"]["mean"] <= 1
        # 4 channels, 4 blocks, rank 4, out_proj 24 -> 24 and linear1 24 -> 32
        assert row["parameters"]["adapters"] == 4 * 4 * 4 * (24 + 24 + 24 + 32)
        assert 0 < row["seconds_per_step"]["mean"] < 60
    network = json.loads((last.parent / "network.json").read_text())
    assert network["lora_scaling"] == "rank_stabilised"
    other = Path(str(last.parent).replace("rank4_rank_stabilised", "rank4_classical"))
    assert json.loads((other / "network.json").read_text())["lora_scaling"] == "classical"
    assert all((Path("R") / name).stat().st_size > 0 for name in WRITTEN)


def wait_for(path, child, seconds=120):
    began = time.perf_counter()
    while not path.exists():
        assert child.poll() is None, "the ablation ended too soon"
        assert time.perf_counter() - began < seconds, f"{path} did not appear"
        time.sleep(0.1)
