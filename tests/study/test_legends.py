"""Where the numbers come from, said in few words."""

from __future__ import annotations

from lora_ext.study.legends import (
    failed_block,
    provenance,
    random_start_line,
    run_lines,
    settings_line,
)


def test_command_device_and_versions_are_named(make_results):
    text = provenance(make_results((), (), ()))
    assert "- Command: `python -m lora_ext study --data_dir data --out study --seeds 0,1`" in text
    assert "- Device: cpu (2 cores)" in text
    assert "torch 2.13.0, monai 1.6.1" in text
    assert provenance({"runs": []}) == ""


def test_settings_that_only_some_regimes_have_name_them(make_results):
    results = make_results(("brats",), ("baseline", "finetune", "lora32", "segresnet"))
    for run in results["runs"]:
        run["knobs"] = {"epochs": 5}
        if run["regime"] in ("finetune", "lora32"):
            run["knobs"]["pretrained"] = "vit.pt"
    line = settings_line(results, "brats")
    assert line.endswith("defaults: `epochs` 5; `pretrained` vit.pt (Finetune, LoRA-32).")
    assert settings_line({"runs": [run | {"knobs": {}}]}, "brats") == ""


def test_regimes_that_ran_without_a_pretrained_encoder_are_named(make_results):
    results = make_results(("brats",), ("baseline", "finetune", "lora32", "segresnet"))
    assert "Finetune, LoRA-32 started from random weights" in random_start_line(results, "brats")
    for run in results["runs"]:
        run["knobs"]["pretrained"] = "vit.pt"
    assert random_start_line(results, "brats") == ""


def test_cases_that_differ_between_runs_are_a_range(make_run):
    runs = [make_run("brats", "lora32", 0, 0, 4), make_run("brats", "lora32", 0, 1, 6)]
    assert run_lines({"runs": runs}, "brats") == [
        "Runs per column: 2 (seed 0, folds 0, 1), 4 to 6 cases per run, 6 distinct cases."
    ]


def test_no_failure_is_no_block(make_results):
    assert failed_block(make_results(("brats",), ("lora32",), (0,))) == ""
