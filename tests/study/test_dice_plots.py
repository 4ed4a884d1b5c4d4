"""The drawn bars and points are the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from lora_ext.study.dice_plots import dice_against_parameters, dice_per_region
from lora_ext.study.paper import PAPER_TABLE_1


def drawn_points(axes, marker):
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines}


def test_bars_are_means_and_dots_are_runs(make_results):
    results = make_results(("brats", "prostatex"), ("baseline", "lora32"))
    figure = dice_per_region(results)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["BraTS", "ProstateX"]
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()][-2:] == ["Mean of regions", "Pooled"]
    dice = [r["summary"]["pooled_dice"] for r in results["runs"] if r["row"] == "brats_lora32"]
    heights = [bar.get_height() for bar in axes.patches]
    assert len(heights) == 2 * 5
    assert heights[-1] == pytest.approx(np.mean(dice))
    dots = [y for line in axes.lines for y in line.get_ydata()]
    assert len(dots) == 2 * 2 * 5
    assert set(dice) <= set(dots)


def test_points_stand_at_the_trained_parameters(make_results):
    results = make_results(("brats",), ("frozen", "lora32", "segresnet"))
    axes = dice_against_parameters(results).axes[0]
    assert axes.get_xscale() == "log"
    found = dict(drawn_points(axes, "o"))
    assert sorted(found) == [4_700_000, 54_577_347, 62_834_883]
    own = [r["summary"]["pooled_dice"] for r in results["runs"] if r["regime"] == "lora32"]
    assert found[62_834_883] == pytest.approx(np.mean(own))
    assert {t.get_text() for t in axes.texts} == {"Frozen", "LoRA-32", "SegResNet"}


def test_the_papers_points_are_drawn_for_networks_of_its_size_only(make_results):
    results = make_results(("brats",), ("frozen", "lora32", "segresnet"))
    paper = PAPER_TABLE_1["brats"]["pooled_dice"]
    expected = {(54_577_347.0, paper["frozen"]), (62_834_883.0, paper["lora32"])}
    assert drawn_points(dice_against_parameters(results).axes[0], "D") == expected
    for run in results["runs"]:
        run["parameters"]["encoder"] = 1000
    assert drawn_points(dice_against_parameters(results).axes[0], "D") == set()


def test_runs_without_counts_leave_an_empty_panel(make_run):
    run = make_run("brats", "lora32") | {"parameters": None}
    assert drawn_points(dice_against_parameters({"runs": [run]}).axes[0], "o") == set()
