"""The drawn bars, points, curves and pictures are those of the results."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from lora_ext.study.paper import PAPER_TABLE_1
from lora_ext.study.plots import (
    REGIME_COLOURS,
    colours,
    dice_against_parameters,
    dice_per_region,
    examples,
    learning_curves,
    over_runs,
    overlays,
    write_plots,
)
from lora_ext.study.results import run_frame

NAMES = ["dice_per_region.png", "dice_against_parameters.png", "learning_curves.png"]


def test_a_regimes_colour_does_not_depend_on_the_others(make_results):
    names = ("lora32", "segresnet", "lora8", "baseline")
    palette = colours(run_frame(make_results(("brats",), names, (0,), 1)))
    alone = colours(run_frame(make_results(("brats",), ("lora32",), (0,), 1)))
    assert palette["lora32"] == alone["lora32"] == REGIME_COLOURS["lora32"]
    assert len({to_rgb(colour) for colour in palette.values()}) == 8


def drawn_points(axes, marker):
    lines = [line for line in axes.lines if line.get_marker() == marker and len(line.get_xdata())]
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
    assert [text.get_text() for text in axes.texts] == [f"{height:.3f}" for height in heights]
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


def points(losses):
    return [{"epoch": i, "loss": loss} for i, loss in enumerate(losses, start=1)]


def test_epochs_are_summed_up_over_the_runs_that_have_them(make_results):
    results = make_results(("brats",), ("lora32",), (0, 1), 1)
    for run, losses in zip(results["runs"], ([3.0, 2.0], [1.0, 1.5, 0.5]), strict=True):
        run["curve"] = points(losses)
    found = over_runs(results, "loss")[["epoch", "mean", "min", "max"]]
    np.testing.assert_allclose(found, [[1, 2.0, 1.0, 3.0], [2, 1.75, 1.5, 2.0], [3, 0.5, 0.5, 0.5]])
    assert over_runs(results, "val_pooled_dice").empty


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


def ink(path):
    """Return the share of pixels that are not white."""
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L"))
    return float((grey < 250).mean())


def test_a_whole_study_gives_four_pictures_that_are_not_blank(make_results, fail, tmp_path):
    results = make_results()
    results["runs"][9] = fail(results["runs"][9])
    best = examples(results, "brats", "lora32").loc["best"]
    (tmp_path / best.picture).parent.mkdir(parents=True)
    Image.new("RGB", (90, 60), (9, 9, 9)).save(tmp_path / best.picture)
    files = write_plots(results, tmp_path)
    assert [path.relative_to(tmp_path / "plots").name for path in files] == [*NAMES, "overlays.png"]
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == sorted(
        [*NAMES, "overlays.png"]
    )
    assert all(ink(path) > 0.01 for path in files)
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


@pytest.mark.parametrize(
    ("datasets", "regimes", "seeds", "cases"),
    [(("brats",), ("lora32",), (0,), 1), (("prostatex",), ("segresnet",), (0, 1), 2)],
)
def test_any_subset_is_drawn(make_results, tmp_path, datasets, regimes, seeds, cases):
    files = write_plots(make_results(datasets, regimes, seeds, cases), tmp_path)
    assert [path.name for path in files] == NAMES
    assert all(ink(path) > 0.005 for path in files)


def test_nothing_finished_is_nothing_drawn(make_run, fail, tmp_path, caplog):
    caplog.set_level(logging.INFO, "lora_ext")
    assert write_plots({"runs": [fail(make_run("brats", "lora32"))]}, tmp_path) == []
    assert "nothing to plot" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_missing_pictures_are_said(make_results, tmp_path, caplog):
    caplog.set_level(logging.INFO, "lora_ext")
    write_plots(make_results(("brats",), ("lora32",), (0,), 1), tmp_path)
    assert "no overlays.png" in caplog.text


def test_what_encoders_started_from_stands_on_every_plot(make_results, tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr("lora_ext.files.os.replace", lambda *paths: None)
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig",
        lambda figure, path, **_: (notes.append(figure), Path(path).touch()),
    )
    results = make_results(("brats",), ("baseline", "lora32"), (0,), 1)
    results["runs"][1]["encoder"] = "a_$file_$.safetensors" * 6
    write_plots(results, tmp_path)
    results["runs"][1]["encoder"] = "random"
    write_plots(results, tmp_path)
    assert ["a_$file_$" in figure.get_supxlabel() for figure in notes] == [True] * 3 + [False] * 3
    for figure in notes[3:]:
        assert "LoRA-32 (random encoder)" in [t.get_text() for t in figure.legends[0].get_texts()]


def paint(path: Path, colour, size=(200, 120)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def test_best_median_and_worst_are_by_pooled_dice_over_all_runs(make_run):
    runs = [make_run("brats", "lora32", seed, cases=3) for seed in (0, 1)]
    for dice, case in zip(
        (0.1, 0.9, 0.5, 0.3, 0.6, 0.2), runs[0]["cases"] + runs[1]["cases"], strict=True
    ):
        case["pooled_dice"] = dice
    found = examples({"runs": runs}, "brats", "lora32")
    assert [(e.Index, e.value, e.seed) for e in found.itertuples()] == [
        ("best", 0.9, 0),
        ("median", 0.3, 1),
        ("worst", 0.1, 0),
    ]
    folder = Path("runs/brats_lora32/seed1_fold0/eval/figures")
    assert found["picture"]["median"] == folder / "BRATS_000.png"


@pytest.mark.parametrize(("cases", "kinds"), [(2, ["best", "worst"]), (1, ["best"])])
def test_few_cases_are_not_shown_twice(make_run, cases, kinds):
    results = {"runs": [make_run("brats", "lora32", cases=cases)]}
    assert list(examples(results, "brats", "lora32").index) == kinds


def test_the_pictures_are_pasted_in_order_and_missing_ones_noted(make_results, tmp_path):
    results = make_results(("brats",), ("baseline", "lora32"), (0,))
    chosen = examples(results, "brats", "lora32")["picture"]
    paint(tmp_path / chosen["best"], (200, 0, 0))
    paint(tmp_path / chosen["worst"], (0, 0, 200))
    figure = overlays(results, tmp_path)
    shown = pixels(figure)
    red = np.argwhere((shown == (200, 0, 0)).all(axis=-1))
    blue = np.argwhere((shown == (0, 0, 200)).all(axis=-1))
    assert len(red) > 0.1 * shown[..., 0].size < 10 * len(blue)
    assert red[:, 0].max() < blue[:, 0].min()
    assert figure.axes[0].get_title(loc="left").startswith("BraTS, LoRA-32: best\nseed 0, pooled")
    notes = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert sum("no picture of" in note for note in notes) == 1


def test_without_any_picture_there_is_no_page(make_results, tmp_path):
    assert overlays(make_results(seeds=(0,)), tmp_path) is None
    assert overlays({"runs": []}, tmp_path) is None


def test_data_sets_stand_side_by_side(make_results, tmp_path):
    results = make_results(regimes=("lora32",), seeds=(0,))
    for run, colour in zip(results["runs"], ((200, 0, 0), (0, 0, 200)), strict=True):
        for picture in examples(results, run["dataset"], "lora32")["picture"]:
            paint(tmp_path / picture, colour)
    shown = pixels(overlays(results, tmp_path))
    half = shown.shape[1] // 2
    assert (shown[:, :half] == (200, 0, 0)).all(axis=-1).any()
    assert not (shown[:, half:] == (200, 0, 0)).all(axis=-1).any()
    assert (shown[:, half:] == (0, 0, 200)).all(axis=-1).any()
