"""One encoder per run: patterns, what is refused, and what the tables and plots tell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lora_ext.study.plan import Run
from lora_ext.study.plots import write_plots
from lora_ext.study.pretrained import (
    check_pretrained,
    encoder_line,
    encoder_note,
    fill_pretrained,
    needs_encoder,
)

RUN = Run("brats_lora32", "brats", "lora32", False, "brats_lora32", 0, 0, "data", {})
REGIMES = ("baseline", "finetune", "lora32", "segresnet")


@pytest.fixture
def started(make_results):
    """A function that makes results whose runs all were given an encoder, by seed."""

    def started(files, regimes=REGIMES, datasets=("brats",)):
        results = make_results(datasets, regimes, tuple(range(len(files))))
        for run in results["runs"]:
            if run["regime"] not in ("baseline", "segresnet"):
                run["knobs"]["pretrained"] = files[run["seed"]]
        return results

    return started


def test_only_data_set_seed_and_fold_are_filled_in():
    place = {"dataset": "brats", "seed": 2, "fold": 1}
    assert fill_pretrained("a/{dataset}_{seed}_{fold}.pt", **place) == "a/brats_2_1.pt"
    assert fill_pretrained("vit.pt", **place) == "vit.pt"
    assert [fill_pretrained(word, **place) for word in ("none", "None")] == ["none", "none"]
    for bad in ("{row}.pt", "{}.pt", "{fold:02d}.pt", "{seed!r}.pt", "{fold.real}.pt", "{fold.pt"):
        with pytest.raises(ValueError, match=r"allowed .*\{dataset\} and \{seed\} and \{fold\}"):
            fill_pretrained(bad, **place)


def test_regimes_but_baseline_need_an_encoder_and_references_do_not():
    needing = [needs_encoder(f"brats_{name}", False) for name in ("finetune", "frozen", "lora16")]
    assert all(needing)
    assert not needs_encoder("brats_baseline", False)
    assert not needs_encoder("brats_lora32", True)


def test_a_run_without_its_encoder_is_refused_in_one_sentence(tmp_path):
    check_pretrained([replace(RUN, knobs={"pretrained": "none"})])
    check_pretrained([replace(RUN, reference=True)])
    there = tmp_path / "vit.pt"
    there.touch()
    check_pretrained([replace(RUN, knobs={"pretrained": str(there)})])
    for knobs, words in (
        ({}, "found no --pretrained; pass --pretrained FILE, or --pretrained none"),
        ({"pretrained": str(tmp_path)}, "found no file .*, which brats_lora32 seed 0 fold 0"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            check_pretrained([replace(RUN, knobs=knobs)])
        assert "\n" not in str(caught.value)


def test_files_and_their_regimes_are_named(started):
    results = started(["a.pt", "b.pt"])
    expected = "Pre-trained encoder of Finetune, LoRA-32: `a.pt`, `b.pt`."
    assert encoder_line(results, "brats") == expected
    assert encoder_note(results) == "pre-trained encoder: a.pt, b.pt"
    assert encoder_line(results, "prostatex") == ""


def test_regimes_that_started_at_random_are_named(started):
    results = started(["none"])
    assert "(`--pretrained none`): Finetune, LoRA-32 started from" in encoder_line(results, "brats")
    note = "no pre-trained encoder (--pretrained none): Finetune, LoRA-32"
    assert encoder_note(results) == note
    assert encoder_note(started(["none"], ("baseline", "segresnet"))) == ""


def test_many_files_are_counted_in_a_plots_note(started):
    files = [f"pre/fold{index}.pt" for index in range(5)]
    assert encoder_note(started(files)) == (
        "pre-trained encoder: fold0.pt, fold1.pt, fold2.pt and 2 more"
    )


def test_plots_with_a_long_note_are_written(started, tmp_path):
    files = ["pre/a_very_long_name_of_a_$file_$.safetensors" * 2, "none"]
    assert len(write_plots(started(files), tmp_path)) == 3
