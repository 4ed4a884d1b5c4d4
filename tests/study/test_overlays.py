"""The right cases are chosen, and their pictures are the ones on the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_ext.study.overlays import examples, overlay_page


def paint(path: Path, colour, size=(200, 120)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def test_best_median_and_worst_are_by_pooled_dice_over_all_runs(make_run):
    runs = [make_run("brats", "lora32", seed, cases=3) for seed in (0, 1)]
    for dice, case in zip(
        (0.1, 0.9, 0.5, 0.3, 0.6, 0.2), runs[0]["cases"] + runs[1]["cases"], strict=True
    ):
        case["pooled_dice"] = dice
    found = examples(runs)
    assert [(e.kind, e.dice, e.seed) for e in found] == [
        ("best", 0.9, 0),
        ("median", 0.3, 1),
        ("worst", 0.1, 0),
    ]
    folder = Path("runs/brats_lora32/seed1_fold0/eval/figures")
    assert found[1].picture == folder / "BRATS_000.png"


@pytest.mark.parametrize(("cases", "kinds"), [(2, ["best", "worst"]), (1, ["best"])])
def test_few_cases_are_not_shown_twice(make_run, cases, kinds):
    assert [e.kind for e in examples([make_run("brats", "lora32", cases=cases)])] == kinds


def test_the_pictures_are_pasted_in_order_and_missing_ones_noted(make_results, tmp_path):
    results = make_results(("brats",), ("baseline", "lora32"), (0,))
    chosen = examples([run for run in results["runs"] if run["regime"] == "lora32"])
    paint(tmp_path / chosen[0].picture, (200, 0, 0))
    paint(tmp_path / chosen[2].picture, (0, 0, 200))
    figure = overlay_page(results, tmp_path)
    shown = pixels(figure)
    red = np.argwhere((shown == (200, 0, 0)).all(axis=-1))
    blue = np.argwhere((shown == (0, 0, 200)).all(axis=-1))
    assert len(red) > 0.1 * shown[..., 0].size < 10 * len(blue)
    assert red[:, 0].max() < blue[:, 0].min()
    texts = [
        text.get_text() for text in [*figure.texts, *(t for a in figure.axes for t in a.texts)]
    ]
    assert any(text.startswith("BraTS, LoRA-32: best") for text in texts)
    assert sum("no picture of" in text for text in texts) == 1


def test_without_any_picture_there_is_no_page(make_results, tmp_path):
    assert overlay_page(make_results(seeds=(0,)), tmp_path) is None
    assert overlay_page({"runs": []}, tmp_path) is None


def test_data_sets_stand_side_by_side(make_results, tmp_path):
    results = make_results(regimes=("lora32",), seeds=(0,))
    for run, colour in zip(results["runs"], ((200, 0, 0), (0, 0, 200)), strict=True):
        for example in examples([run]):
            paint(tmp_path / example.picture, colour)
    shown = pixels(overlay_page(results, tmp_path))
    half = shown.shape[1] // 2
    assert (shown[:, :half] == (200, 0, 0)).all(axis=-1).any()
    assert not (shown[:, half:] == (200, 0, 0)).all(axis=-1).any()
    assert (shown[:, half:] == (0, 0, 200)).all(axis=-1).any()
