"""Several studies in one go: their order, one lock, and what fails."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lora_ext.study import parts as module
from lora_ext.study import process
from lora_ext.study.lock import only_study
from lora_ext.study.parts import Part, exit_if_failed, run_parts
from lora_ext.study.plan import Run

RUN = Run("brats_baseline", "brats", "baseline", False, "brats_baseline", 0, 0, "data", {})
OTHER = replace(RUN, seed=1)
FAKE = Path(__file__).with_name("fake_bundle.py")


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two parts of two runs each, in a folder with the stand-in for MONAI."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "LAUNCHER", (sys.executable, str(FAKE)))
    monkeypatch.setattr(process, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
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
        assert json.loads((part.folder / "results.json").read_text())["runs"] == own["runs"]


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
    assert "the same command goes on" in capsys.readouterr().err
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
