"""Means, spreads, changes and ranks, against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from lora_ext.study.statistics import (
    Spread,
    by_regime,
    measures,
    percent_change,
    ranking,
    references,
    spread,
    unfinished,
    value_of,
)


def test_a_spread_is_the_mean_and_the_sample_standard_deviation():
    value = Spread.of([0.8, None, 0.9, 1.0])
    assert value.values == (0.8, 0.9, 1.0)
    assert value.mean == pytest.approx(0.9)
    assert value.std == pytest.approx(0.1)  # sqrt((0.01 + 0 + 0.01) / 2)


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert Spread.of([0.5]).mean == 0.5
    assert math.isnan(Spread.of([0.5]).std)
    assert math.isnan(Spread.of([]).mean)


def test_runs_are_summed_up_over_seeds_by_region_and_overall(make_run):
    runs = [make_run("brats", "lora32", seed) for seed in (0, 1, 2)]
    for run, dice in zip(runs, (0.7, 0.8, 0.6), strict=True):
        run["summary"]["pooled_dice"] = dice
        run["summary"]["regions"]["ET"]["dice"] = dice / 2
    assert spread(runs, "pooled_dice").mean == pytest.approx(0.7)
    assert spread(runs, "pooled_dice").std == pytest.approx(0.1)
    assert spread(runs, "ET").mean == pytest.approx(0.35)
    assert value_of(runs[0], "PZ") is None


def test_the_change_is_in_percent_of_the_baseline():
    assert percent_change(0.88, 0.8) == pytest.approx(10.0)
    assert percent_change(0.6, 0.8) == pytest.approx(-25.0)
    assert math.isnan(percent_change(0.5, 0.0))
    assert math.isnan(percent_change(0.5, math.nan))


def test_finished_runs_are_in_the_papers_order_and_references_last(make_results, fail):
    results = make_results(regimes=("segresnet", "lora64", "lora8", "baseline", "finetune"))
    results["runs"].reverse()
    results["runs"][0] = fail(results["runs"][0])
    table = by_regime(results)
    assert list(table) == ["brats", "prostatex"]
    order = ["baseline", "finetune", "lora64", "lora8", "segresnet"]
    assert list(table["brats"]) == list(table["prostatex"]) == order
    assert references(table["brats"]) == {"segresnet"}
    assert measures(table["prostatex"]) == ["PZ", "TZ", "mean_dice", "pooled_dice"]
    assert len(unfinished(results)) == 1
    assert sum(len(runs) for rows in table.values() for runs in rows.values()) == 19


def test_the_best_is_first_and_the_next_value_second():
    assert ranking({"a": 0.8, "b": 0.9, "c": 0.7, "d": math.nan}) == {"b": 1, "a": 2}


def test_values_that_print_alike_share_a_rank():
    assert ranking({"a": 0.80001, "b": 0.80004, "c": 0.7}) == {"a": 1, "b": 1, "c": 2}


def test_a_reference_is_ranked_only_where_it_beats_every_regime():
    means = {"a": 0.8, "b": 0.9, "reference": 0.85}
    assert ranking(means, {"reference"}) == {"b": 1, "a": 2}
    assert ranking(means | {"reference": 0.95}, {"reference"}) == {"reference": 1, "b": 2}
    assert ranking(means | {"reference": 0.9}, {"reference"}) == {"b": 1, "a": 2}


def test_one_participant_alone_is_not_the_best():
    assert ranking({"a": 0.8}) == {}
    assert ranking({"a": 0.8, "reference": 0.7}, {"reference"}) == {}
    assert ranking({"reference": 0.7}, {"reference"}) == {}
