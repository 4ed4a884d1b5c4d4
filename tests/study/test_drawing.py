"""Colours that stay and labels that do not cover each other."""

from __future__ import annotations

from itertools import combinations

from matplotlib.colors import to_rgb
from matplotlib.text import Text

from lora_ext.study.drawing import REGIME_COLOURS, colours, label_points, new_figure


def test_a_regimes_colour_does_not_depend_on_the_others():
    assert colours(["lora32"])["lora32"] == colours(["segresnet", "baseline", "lora32"])["lora32"]
    palette = colours([*REGIME_COLOURS, "segresnet", "dynunet", "unetr", "lora8"])
    assert len({to_rgb(colour) for colour in palette.values()}) == 10


def test_labels_of_close_points_do_not_overlap_and_stay_inside():
    figure = new_figure(4, 6)
    axes = figure.subplots()
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    places = [(5, 5), (5.1, 5.1), (4.9, 5.0), (5.0, 5.2), (0.2, 0.2), (9.9, 9.9), (9.8, 9.9)]
    label_points(axes, [(x, y, f"Regime {x}", "black") for x, y in places])
    figure.canvas.draw()
    boxes = [Text.get_window_extent(label) for label in axes.texts]
    assert len(boxes) == len(places)
    assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))
    for box in boxes:
        assert axes.bbox.x0 <= box.x0 <= box.x1 <= axes.bbox.x1
        assert axes.bbox.y0 <= box.y0 <= box.y1 <= axes.bbox.y1
