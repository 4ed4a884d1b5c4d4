"""Pairing is by seed, fold and case; the unit is the case."""

from __future__ import annotations

import numpy as np
import pytest

from lora_ext.study.pairs import main_regime, pair, planned_pairs
from lora_ext.study.statistics import by_regime


def record(seed, values, fold=0):
    """A record that has only what pairing reads: the pooled Dice of named cases."""
    cases = [
        {"case": name, "pooled_dice": dice, "regions": {"TC": {"dice": dice / 2}}}
        for name, dice in values.items()
    ]
    return {"seed": seed, "fold": fold, "cases": cases}


def test_a_case_of_several_seeds_counts_once_with_its_mean():
    first = [record(0, {"a": 0.9, "b": 0.5}), record(1, {"a": 0.7, "b": 0.6})]
    second = [record(1, {"b": 0.4, "a": 0.6}), record(0, {"a": 0.6, "b": 0.5})]
    paired = pair(first, second, "pooled_dice")
    assert paired.cases == ("a", "b")
    np.testing.assert_allclose(paired.first, [0.8, 0.55])
    np.testing.assert_allclose(paired.differences, [0.2, 0.1])
    assert (paired.measurements, paired.unpaired) == (4, 0)
    np.testing.assert_allclose(pair(first, second, "TC").differences, [0.1, 0.05])


def test_what_only_one_regime_has_is_left_out_and_counted():
    first = [record(0, {"a": 0.9, "b": 0.5, "c": 0.1}), record(1, {"a": 0.1})]
    second = [record(0, {"b": 0.4, "a": 0.8, "d": 1.0})]
    paired = pair(first, second, "pooled_dice")
    assert paired.cases == ("a", "b")
    np.testing.assert_allclose(paired.differences, [0.1, 0.1])  # seed 1 of case a has no partner
    assert (paired.measurements, paired.unpaired) == (2, 3)  # c, a of seed 1, d


def test_the_same_case_in_another_fold_is_no_pair():
    paired = pair([record(0, {"a": 0.9}, fold=0)], [record(0, {"a": 0.8}, fold=1)], "pooled_dice")
    assert (paired.cases, paired.measurements, paired.unpaired) == ((), 0, 2)


def test_a_region_that_a_case_lacks_is_no_measurement():
    runs = [record(0, {"a": 0.9})]
    assert pair(runs, runs, "WT").cases == ()


def test_the_planned_pairs_are_those_of_the_papers_claims(make_results):
    regimes = by_regime(make_results(("brats",), seeds=(0,), cases=1))["brats"]
    pairs = planned_pairs(regimes)
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
    found = by_regime(make_results(("brats",), regimes, (0,), 1))["brats"]
    assert main_regime(found) == main
    assert planned_pairs(found) == expected
