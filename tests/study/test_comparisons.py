"""Pairs, tests and intervals, against scipy called directly and values worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lora_ext.study.comparisons import (
    compare,
    compare_all,
    holm,
    main_regime,
    mean_interval,
    planned_pairs,
    sentence,
    signed_rank,
    verdict,
    write_comparisons,
)
from lora_ext.study.results import dice_frame, run_frame

DIFFERENCES = np.array([0.011, -0.004, 0.02, 0.013, 0.006, 0.031, -0.001, 0.009])
NOISE = np.array([-0.002, 0.001, 0.002, -0.001, 0.0005, -0.0005, 0.003, -0.003])
NAMES = {"lora32": "LoRA-32", "finetune": "Finetune"}


def measured(regime, seed, values, fold=0):
    """The rows of `dice_frame` of one run: the pooled Dice of named cases."""
    rows = [(regime, seed, fold, case, "pooled_dice", dice) for case, dice in values.items()]
    return pd.DataFrame(rows, columns=["regime", "seed", "fold", "case", "measure", "value"])


def compared(*runs):
    return compare(pd.concat(runs), "lora32", "finetune", "pooled_dice")


def test_a_case_of_several_seeds_counts_once_with_its_mean():
    found = compared(
        measured("lora32", 0, {"a": 0.9, "b": 0.5}),
        measured("lora32", 1, {"a": 0.7, "b": 0.6}),
        measured("finetune", 1, {"b": 0.4, "a": 0.6}),
        measured("finetune", 0, {"a": 0.6, "b": 0.5}),
    )
    assert (found["cases"], found["measurements"], found["unpaired"]) == (2, 4, 0)
    assert found["mean"] == pytest.approx((0.8 + 0.55) / 2)
    assert found["difference"] == pytest.approx((0.2 + 0.1) / 2)


def test_what_only_one_regime_has_is_left_out_and_counted():
    found = compared(
        measured("lora32", 0, {"a": 0.9, "b": 0.5, "c": 0.1}),
        measured("lora32", 1, {"a": 0.1}),  # seed 1 of case a has no partner
        measured("finetune", 0, {"b": 0.4, "a": 0.8, "d": 1.0}),
    )
    assert (found["cases"], found["measurements"], found["unpaired"]) == (2, 2, 3)
    assert found["difference"] == pytest.approx(0.1)


def test_the_same_case_in_another_fold_is_no_pair():
    found = compared(
        measured("lora32", 0, {"a": 0.9}, fold=0), measured("finetune", 0, {"a": 0.8}, fold=1)
    )
    assert (found["cases"], found["unpaired"]) == (0, 2)
    assert all(math.isnan(found[key]) for key in ("mean", "difference", "low", "p"))


def test_the_planned_pairs_are_those_of_the_papers_claims(make_results):
    pairs = planned_pairs(run_frame(make_results(("brats",), seeds=(0,), cases=1)))
    assert len(pairs) == len(set(pairs)) == 3 * 3 + 2 + 1
    assert {("lora32", "finetune"), ("lora32", "frozen"), ("lora16", "baseline")} <= set(pairs)
    assert {("finetune", "baseline"), ("frozen", "baseline")} <= set(pairs)
    assert [pair for pair in pairs if "segresnet" in pair] == [("lora32", "segresnet")]


@pytest.mark.parametrize(
    ("regimes", "main", "expected"),
    [
        (("lora32",), "lora32", []),
        (("segresnet",), None, []),
        (("finetune", "frozen"), "finetune", []),
        (("finetune", "lora16"), "finetune", [("lora16", "finetune")]),
        (("baseline", "segresnet"), "baseline", [("baseline", "segresnet")]),
    ],
)
def test_any_subset_of_regimes_gives_the_pairs_it_has(make_results, regimes, main, expected):
    found = run_frame(make_results(("brats",), regimes, (0,), 1))
    assert main_regime(found) == main
    assert planned_pairs(found) == expected


def test_the_p_value_is_scipys_on_the_paired_cases(make_results):
    results = make_results(("brats",), ("finetune", "lora32"), (0, 1), cases=8)
    dice = {
        name: np.array(
            [
                [case["pooled_dice"] for case in run["cases"]]
                for run in results["runs"]
                if run["regime"] == name
            ]
        )
        for name in NAMES
    }
    cases = dice_frame(results, per_case=True)
    found = compare(cases, "lora32", "finetune", "pooled_dice")
    ours, theirs = dice["lora32"].mean(axis=0), dice["finetune"].mean(axis=0)
    assert found["p"] == pytest.approx(stats.wilcoxon(ours, theirs).pvalue)
    assert found["difference"] == pytest.approx((ours - theirs).mean())
    assert (found["mean"], found["other_mean"]) == pytest.approx((ours.mean(), theirs.mean()))
    assert [found[key] for key in ("cases", "measurements", "unpaired", "note")] == [8, 16, 0, ""]
    assert found["low"] < found["difference"] < found["high"]


def test_six_differences_of_one_sign_have_the_exact_p_value():
    assert signed_rank(np.arange(1, 7) / 100) == (pytest.approx(2 / 2**6), "")


def test_zero_differences_are_handled_and_said():
    assert signed_rank(np.zeros(9)) == (1.0, "all differences are zero")
    p, note = signed_rank(np.array([0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5]))
    assert math.isnan(p)
    assert note == "5 cases differ; a test needs 6"


def test_the_interval_holds_the_mean_and_comes_back_by_seed():
    low, high = mean_interval(DIFFERENCES, seed=3)
    assert low < DIFFERENCES.mean() < high
    assert mean_interval(DIFFERENCES, seed=3) == (low, high)
    assert mean_interval(DIFFERENCES, seed=4) != (low, high)
    assert mean_interval(DIFFERENCES, seed=4) == pytest.approx((low, high), abs=5e-4)


def test_the_interval_is_near_students_for_many_normal_differences():
    values = np.random.default_rng(0).normal(0.02, 0.05, 400)
    student = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((student.low, student.high), abs=5e-4)


def test_the_interval_turns_over_with_the_sign_of_the_differences():
    low, high = mean_interval(DIFFERENCES)
    assert mean_interval(-DIFFERENCES) == pytest.approx((-high, -low), abs=5e-4)


def test_equal_differences_have_an_interval_of_no_width():
    assert mean_interval(np.full(7, 0.25)) == (0.25, 0.25)
    assert mean_interval(np.zeros(7)) == (0.0, 0.0)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_cases_have_no_interval(count):
    assert all(math.isnan(end) for end in mean_interval(np.arange(count) / 10))


def test_holms_correction_is_the_one_worked_out_by_hand():
    corrected = holm(pd.Series([0.04, 0.01, math.nan, 0.03, 0.9]))
    # sorted: 0.01 x 4, 0.03 x 3, then 0.04 x 2 = 0.08 is raised to the 0.09 before it, 0.9 x 1
    assert list(corrected) == pytest.approx([0.09, 0.04, math.nan, 0.09, 0.9], nan_ok=True)
    assert list(holm(pd.Series([0.7, 0.8]))) == [1.0, 1.0]


def shifted(shift, noise=NOISE):
    """LoRA-32 against finetune, whose per-case Dice differ by `shift` and noise."""
    base = np.linspace(0.7, 0.9, len(noise))
    runs = {"finetune": base, "lora32": base + shift + noise}
    cases = [measured(name, 0, {f"{i}": v for i, v in enumerate(d)}) for name, d in runs.items()]
    return compared(*cases) | {"dataset": "brats"}


@pytest.mark.parametrize(
    ("shift", "scale", "answer", "reason"),
    [
        (0.0, 1, "yes", "the lower end is above the margin of -0.01"),
        (-0.005, 1, "yes", "it is lower, but by less than the margin"),
        (0.05, 1, "yes", "it is better: the whole interval is above 0"),
        (-0.05, 1, "no", "even the upper end is below the margin of -0.01"),
        (-0.009, 10, "not shown", "the lower end is not above the margin of -0.01"),
        (-0.01, 1, "not shown", "it is lower, but by how much is open"),
    ],
)
def test_the_answer_follows_from_the_ends_of_the_interval(shift, scale, answer, reason):
    found = shifted(shift, scale * NOISE)
    assert verdict(found) == answer
    text = sentence(found, NAMES)
    assert text.startswith("Is LoRA-32 as good as Finetune on BraTS? **")
    assert f"**{answer.capitalize()}**" in text
    assert reason in text
    assert f"{found['difference']:+.4f}" in text
    assert f"{found['low']:+.4f} to {found['high']:+.4f}" in text
    assert "8 cases" in text


def test_too_few_cases_show_nothing():
    found = shifted(0.2, NOISE[:4])
    assert verdict(found) == "not shown"
    assert "**Not shown**: 4 paired cases" in sentence(found, NAMES)


def rows_of(page):
    """The rows of the main table of a page."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in rows if len(row) == 9 and row[2].isdigit()]


@pytest.fixture
def written(make_results, fail, tmp_path):
    """A study with a failed run: its page, its file and what was compared."""
    results = make_results(
        ("brats",), ("baseline", "finetune", "frozen", "lora16", "lora32"), cases=6
    )
    results["runs"][-1] = fail(results["runs"][-1])
    page, data = write_comparisons(results, tmp_path)
    return (
        page.read_text(encoding="utf-8"),
        json.loads(data.read_text("utf-8")),
        compare_all(dice_frame(results, per_case=True), run_frame(results)),
    )


def test_the_page_read_back_equals_the_file(written):
    page, data, _ = written
    rows = rows_of(page)
    main = [c for c in data["comparisons"] if c["family"] == "main"]
    assert len(rows) == len(main) == 8
    for row, found in zip(rows, main, strict=True):
        assert int(row[2]) == found["cases"] == 6
        for text, key in zip(row[3:6], ("mean", "other_mean", "difference"), strict=True):
            assert float(text) == pytest.approx(found[key], abs=5.1e-5)
        low, high = map(float, row[6].split(" to "))
        assert (low, high) == pytest.approx((found["low"], found["high"]), abs=5.1e-5)
        assert float(row[7]) == pytest.approx(found["p"], abs=5.1e-4)
        assert float(row[8]) == pytest.approx(found["p_holm"], abs=5.1e-4)


def test_each_table_is_one_family_of_holms_correction(written):
    _, data, _ = written
    for family, size in (("main", 8), ("regions", 24)):
        tests = [c for c in data["comparisons"] if c["family"] == family]
        assert len(tests) == size
        tested = [c for c in tests if c["p"] is not None]
        assert len(tested) > size / 2
        assert all((c["p"] is None) == (c["p_holm"] is None) for c in tests)
        smallest = min(tested, key=lambda c: c["p"])
        assert smallest["p_holm"] == pytest.approx(min(1.0, len(tested) * smallest["p"]))


def test_measurements_without_a_partner_are_counted(written):
    page, data, found = written
    for c in found[found["family"] == "main"].to_dict("records"):
        assert c["unpaired"] == (6 if "lora32" in (c["regime"], c["other"]) else 0)
    assert "LoRA-32 against Finetune" in page
    assert "6 measurements that only one of the two has are left out" in page
    assert all(c["measurements"] in (6, 12) for c in data["comparisons"])


def test_the_papers_question_is_answered_for_the_main_rank_first(written):
    page, data, _ = written
    assert [a["regime"] for a in data["as_good_as_finetune"]] == ["lora32", "lora16"]
    assert data["margin"] == 0.01
    for answer in data["as_good_as_finetune"]:
        assert f"- {answer['text']}" in page.splitlines()
        assert f"**{answer['verdict'].capitalize()}**" in answer["text"]


def test_one_regime_alone_is_said_to_have_no_partner(make_results, tmp_path):
    page, data = write_comparisons(make_results(("brats",), ("lora32",), (0,)), tmp_path)
    assert "there is nothing to compare" in page.read_text(encoding="utf-8")
    assert json.loads(data.read_text("utf-8"))["comparisons"] == []


def test_regimes_without_a_common_case_give_dashes_and_no_nan(make_run, tmp_path):
    runs = [make_run("brats", "finetune", 0), make_run("brats", "lora32", 1)]
    page, data = write_comparisons({"runs": runs}, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert rows_of(text) == [["LoRA-32", "Finetune", "0", *["–"] * 6]]  # noqa: RUF001
    assert "**Not shown**: 0 paired cases" in text
    assert "NaN" not in data.read_text("utf-8")
