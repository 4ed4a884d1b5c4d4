"""Where the numbers come from, said in few words."""

from __future__ import annotations

from lora_ext.study.legends import dataset_notes, failed_block, provenance, run_lines, settings_line


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
            run["knobs"] |= {"pretrained": "vit.pt", "amp": False}
    line = settings_line(results, "brats")
    assert line.endswith("defaults: `epochs` 5; `amp` False (Finetune, LoRA-32).")
    assert settings_line({"runs": [run | {"knobs": {}}]}, "brats") == ""


def test_the_notes_tell_which_encoder_the_regimes_started_from(make_results):
    results = make_results(("brats",), ("baseline", "lora32"))
    assert "LoRA-32 started from random weights" in dataset_notes(results, "brats")
    for run in results["runs"]:
        run["knobs"]["pretrained"] = "vit.pt"
    assert "Pre-trained encoder of LoRA-32: `vit.pt`." in dataset_notes(results, "brats")


def test_cases_that_differ_between_runs_are_a_range(make_run):
    runs = [make_run("brats", "lora32", 0, 0, 4), make_run("brats", "lora32", 0, 1, 6)]
    assert run_lines({"runs": runs}, "brats") == [
        "Runs per column: 2 (seed 0, folds 0, 1), 4 to 6 cases per run, 6 distinct cases."
    ]


def test_no_failure_is_no_block(make_results):
    assert failed_block(make_results(("brats",), ("lora32",), (0,))) == ""
