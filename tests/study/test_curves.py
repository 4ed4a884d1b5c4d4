"""Curves over runs: mean, lowest and highest of what was measured."""

from __future__ import annotations

import numpy as np

from lora_ext.study.curves import learning_curves, over_runs


def points(losses, start=1):
    return {
        "curve": [
            {"epoch": start + i, "loss": loss, "val_pooled_dice": None}
            for i, loss in enumerate(losses)
        ]
    }


def test_epochs_are_summed_up_over_the_runs_that_have_them():
    found = over_runs([points([3.0, 2.0]), points([1.0, 1.5, 0.5])], "loss")
    np.testing.assert_allclose(found, [[1, 2.0, 1.0, 3.0], [2, 1.75, 1.5, 2.0], [3, 0.5, 0.5, 0.5]])


def test_what_was_never_measured_is_an_empty_curve():
    assert over_runs([points([1.0]), {"curve": None}], "val_pooled_dice").shape == (0, 4)


def test_one_line_per_regime_with_its_band(make_results):
    figure = learning_curves(make_results(("brats",), ("baseline", "lora32", "segresnet")))
    loss, dice = figure.axes
    assert [len(axes.lines) for axes in (loss, dice)] == [3, 3]
    assert [len(axes.collections) for axes in (loss, dice)] == [3, 3]
    assert list(dice.lines[0].get_xdata()) == [5, 10, 15, 20]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "Baseline",
        "LoRA-32",
        "SegResNet",
    ]


def test_runs_without_curves_give_empty_panels(make_run):
    figure = learning_curves({"runs": [make_run("brats", "lora32") | {"curve": []}]})
    assert [len(axes.lines) for axes in figure.axes] == [0, 0]
    assert not figure.legends
