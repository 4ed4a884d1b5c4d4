"""Tests and intervals, against scipy called by hand and values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lora_ext.study.difference import compare, holm, mean_interval, signed_rank
from lora_ext.study.statistics import by_regime

DIFFERENCES = np.array([0.011, -0.004, 0.02, 0.013, 0.006, 0.031, -0.001, 0.009])


def test_the_p_value_is_scipys_on_the_paired_cases(make_results):
    results = make_results(("brats",), ("finetune", "lora32"), (0, 1), cases=8)
    regimes = by_regime(results)["brats"]
    dice = {
        name: np.array([[case["pooled_dice"] for case in run["cases"]] for run in runs])
        for name, runs in regimes.items()
    }
    found = compare(regimes, "brats", "lora32", "finetune", "pooled_dice")
    ours, theirs = dice["lora32"].mean(axis=0), dice["finetune"].mean(axis=0)
    assert found.p == pytest.approx(stats.wilcoxon(ours, theirs).pvalue)
    assert found.difference == pytest.approx((ours - theirs).mean())
    assert (found.mean, found.other_mean) == pytest.approx((ours.mean(), theirs.mean()))
    assert (found.cases, found.measurements, found.unpaired, found.note) == (8, 16, 0, "")
    assert found.low < found.difference < found.high


def test_six_differences_of_one_sign_have_the_exact_p_value():
    assert signed_rank(np.arange(1, 7) / 100) == (pytest.approx(2 / 2**6), "")


def test_zero_differences_are_handled_and_said():
    assert signed_rank(np.zeros(9)) == (1.0, "all differences are zero")
    p, note = signed_rank(np.array([0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5]))
    assert p is None
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
    assert mean_interval(np.arange(count) / 10) is None


def test_a_comparison_of_too_few_cases_says_so(make_results):
    regimes = by_regime(make_results(("brats",), ("finetune", "lora32"), (0,), 3))["brats"]
    found = compare(regimes, "brats", "lora32", "finetune", "TC")
    assert (found.cases, found.p, found.low, found.high) == (3, None, None, None)
    assert found.note == "3 paired cases; a test and an interval need 6"


def test_regimes_without_a_common_case_have_no_numbers(make_run):
    regimes = {
        "lora32": [make_run("brats", "lora32", 0)],
        "frozen": [make_run("brats", "frozen", 1)],
    }
    found = compare(regimes, "brats", "lora32", "frozen", "pooled_dice").to_dict()
    assert (found["cases"], found["unpaired"]) == (0, 10)
    assert found["difference"] is found["mean"] is found["p"] is None


def test_holms_correction_is_the_one_worked_out_by_hand(make_results):
    regimes = by_regime(make_results(("brats",), ("finetune", "lora32"), (0,), 6))["brats"]
    one = compare(regimes, "brats", "lora32", "finetune", "TC")
    family = [replace(one, p=p) for p in (0.04, 0.01, None, 0.03, 0.9)]
    corrected = [c.p_holm for c in holm(family)]
    # sorted: 0.01 x 4, 0.03 x 3, then 0.04 x 2 = 0.08 is raised to the 0.09 before it, 0.9 x 1
    assert corrected == [pytest.approx(0.09), pytest.approx(0.04), None, pytest.approx(0.09), 0.9]
    assert [c.p_holm for c in holm([replace(one, p=0.7), replace(one, p=0.8)])] == [1.0, 1.0]
