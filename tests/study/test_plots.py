"""The plots are written, and something is on them."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
from PIL import Image

from lora_ext.study.overlays import examples
from lora_ext.study.plots import write_plots

NAMES = ["dice_per_region.png", "dice_against_parameters.png", "learning_curves.png"]


def ink(path):
    """Return the share of pixels that are not white."""
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L"))
    return float((grey < 250).mean())


def test_a_whole_study_gives_four_pictures_that_are_not_blank(make_results, fail, tmp_path):
    results = make_results()
    results["runs"][9] = fail(results["runs"][9])
    best = examples([results["runs"][8]])[0]
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
    [
        (("brats",), ("lora32",), (0,), 1),
        (("prostatex",), ("segresnet",), (0, 1), 2),
    ],
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
