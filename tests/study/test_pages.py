"""Pages as GitHub reads them: numbers, marks, foreign text, and notes on the runs."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from lora_ext.study.pages import (
    code,
    dataset_sections,
    encoder_note,
    markdown,
    millions,
    ranking,
    run_notes,
    settings_note,
    spread,
    write_page,
)
from lora_ext.study.results import run_frame


def rank(means, outside=()):
    return ranking(pd.Series(means, dtype=float), outside)


def test_the_best_is_first_and_the_next_value_second():
    assert rank({"a": 0.8, "b": 0.9, "c": 0.7, "d": math.nan}) == {"b": 1, "a": 2}


def test_values_that_print_alike_share_a_rank():
    assert rank({"a": 0.80001, "b": 0.80004, "c": 0.7}) == {"a": 1, "b": 1, "c": 2}


def test_a_reference_is_ranked_only_where_it_beats_every_regime():
    means = {"a": 0.8, "b": 0.9, "reference": 0.85}
    assert rank(means, {"reference"}) == {"b": 1, "a": 2}
    assert rank(means | {"reference": 0.95}, {"reference"}) == {"reference": 1, "b": 2}
    assert rank(means | {"reference": 0.9}, {"reference"}) == {"b": 1, "a": 2}


def test_one_participant_alone_is_not_the_best():
    assert rank({"a": 0.8}) == {}
    assert rank({"a": 0.8, "reference": 0.7}, {"reference"}) == {}
    assert rank({"reference": 0.7}, {"reference"}) == {}


def test_a_table_escapes_bars_and_aligns_its_first_column_left():
    text = markdown(pd.DataFrame({"a": ["1.50", "x|y"], "b": ["2.10", ""]}))
    head, rule, first, second = text.splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["a", "b"]
    assert rule.replace("-", "") == "|:|:|"
    assert "1.50" in first  # digits stay as they were written
    assert "x\\|y" in second


def test_a_spread_has_a_mark_digits_and_a_dash_where_it_is_unknown():
    assert spread(0.85, 0.0707, 1) == "**0.8500** ± 0.0707"
    assert spread(0.8, math.nan, 2) == "<u>0.8000</u>"
    assert spread(12.34, 5.67, digits=1) == "12.3 ± 5.7"
    assert spread(math.nan, math.nan) == millions(math.nan) == "–"  # noqa: RUF001
    assert millions(1_234_567, 0.25) == "1.235 (25.00 %)"


def test_foreign_text_is_one_line_of_code():
    assert code("a `b`\n  # c") == "`a 'b' # c`"
    assert len(code("x" * 1000)) == 302
    assert code("<b>&", 2) == "`<b`"  # shown as it is, since code spans are no HTML


def test_a_page_has_a_section_per_data_set_and_ends_with_its_legend(make_results, tmp_path):
    results = make_results()
    sections = dataset_sections(results, {"brats": "table a", "prostatex": "table b"})
    page = write_page(tmp_path / "new/page.md", "Head", results, sections, "- {{ dice_rule }}")
    text = page.read_text(encoding="utf-8")
    parts = ["# Head", "## BraTS", "table a", "## ProstateX", "table b", "## Legend", "- Dice"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "\n\n\n" not in text
    for line in (
        "- Command: `python -m lora_ext study --data_dir data --out study --seeds 0,1`",
        "- Made: 2026-01-02T03:04:05+00:00",
        "- Device: cpu (2 cores)",
        "- Versions: lora_ext 0.1.0, torch 2.13.0, monai 1.6.1",
    ):
        assert line in text.splitlines()


def test_what_a_run_s_error_says_cannot_break_the_page(make_run, fail, tmp_path):
    run = fail(make_run("brats", "lora32"), "line one | <img>\n# line `two`")
    text = write_page(tmp_path / "a.md", "Head", {"runs": [run]}, [], "").read_text("utf-8")
    assert "No run has finished." in text
    assert "**Runs without a result** (1)" in text
    line = "- `brats_lora32`, seed 0, fold 0: `line one | <img> # line 'two'`"
    assert line in text.splitlines()


@pytest.mark.parametrize(("encoder", "said"), [(88_322_304, False), (12_345, True)])
def test_a_network_of_another_size_than_the_papers_is_named(make_run, tmp_path, encoder, said):
    run = make_run("brats", "lora32")
    run["parameters"]["encoder"] = encoder
    text = write_page(tmp_path / "t.md", "Head", {"runs": [run]}, [], "").read_text("utf-8")
    assert ("a network of another size than the paper's" in text) == said


def test_settings_that_only_some_regimes_have_name_them(make_results):
    results = make_results(("brats",), ("baseline", "finetune", "lora32", "segresnet"))
    for run in results["runs"]:
        run["knobs"] = {"epochs": 5, "split_seed": 1}
        if run["regime"] in ("finetune", "lora32"):
            run["knobs"] |= {"pretrained": "vit.pt", "amp": False}
    line = settings_note(results["runs"])
    assert line.endswith("defaults: `epochs 5`, `split_seed 1`, `amp False` (Finetune, LoRA-32).")
    assert settings_note([results["runs"][0] | {"knobs": {}}]) == ""


def test_cases_that_differ_between_runs_are_a_range(make_run):
    runs = [make_run("brats", "lora32", 0, 0, 4), make_run("brats", "lora32", 0, 1, 6)]
    assert run_notes(run_frame({"runs": runs})) == [
        "Runs per column: 2 (seed 0, folds 0, 1), 4 to 6 cases per run, 6 distinct cases."
    ]


@pytest.fixture
def started(make_results):
    """A function that makes runs that started from one encoder per seed."""

    def started(files):
        regimes = ("baseline", "finetune", "lora32", "segresnet")
        results = make_results(("brats",), regimes, tuple(range(len(files))), 1)
        for run in results["runs"]:
            run["encoder"] = files[run["seed"]]
        return run_frame(results)

    return started


def test_encoders_and_their_regimes_are_named(started):
    regimes = "Encoder: Finetune, LoRA-32 started from"
    assert encoder_note(started(["a.pt", "b.pt"])) == f"{regimes} `a.pt`, `b.pt`."
    assert encoder_note(started(["random"])) == f"{regimes} random weights."
    assert encoder_note(started([None])) == f"{regimes} an unknown encoder."
    many = started([f"fold{index}.pt" for index in range(5)])
    short = encoder_note(many, mark="", most=3)
    assert short == f"{regimes} fold0.pt, fold1.pt, fold2.pt and 2 more."
    assert encoder_note(many[many["regime"] == "baseline"]) == ""
