"""Dice per region as bars, and Dice against the number of trained parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lora_ext.study.drawing import (
    PAPER_GREY,
    WIDTH_INCHES,
    colours,
    dress,
    label_points,
    new_figure,
)
from lora_ext.study.paper import (
    PAPER_ENCODER_PARAMETERS,
    PAPER_TABLE_1,
    dataset_title,
    measure_title,
    regime_title,
)
from lora_ext.study.statistics import Record, by_regime, measures, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Regimes = Mapping[str, Sequence[Record]]
DOT: dict[str, Any] = {
    "linestyle": "",
    "marker": "o",
    "markersize": 4,
    "color": "black",
    "markeredgecolor": "white",
    "markeredgewidth": 0.5,
}
GROUP_WIDTH = 0.86  # of the distance between two groups of bars


def dice_per_region(results: Mapping[str, Any]) -> Figure:
    """Draw mean Dice per region and regime as bars, single runs as dots, one panel per data set.

    Args:
        results: the content of results.json, with at least one finished run.

    Returns:
        A figure that belongs to no global state.
    """
    tables = by_regime(results)
    figure = new_figure(0.7 + 3.3 * len(tables))
    panels = figure.subplots(len(tables), 1, squeeze=False)[:, 0]
    palette = colours(name for regimes in tables.values() for name in regimes)
    for axes, (dataset, regimes) in zip(panels, tables.items(), strict=True):
        _bars(axes, regimes, palette)
        dress(axes, dataset_title(dataset), y="Dice")
    _legend(figure, palette)
    return figure


def dice_against_parameters(results: Mapping[str, Any]) -> Figure:
    """Draw pooled Dice against the number of trained parameters, one panel per data set.

    Error bars are the sample standard deviation over runs. The paper's points are drawn in grey
    at the same parameters where the study's network has the paper's size.

    Args:
        results: the content of results.json, with at least one finished run.

    Returns:
        A figure that belongs to no global state.
    """
    tables = by_regime(results)
    figure = new_figure(4.6, WIDTH_INCHES if len(tables) > 1 else 7.0)
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    paper = {dataset: _paper_points(dataset, regimes) for dataset, regimes in tables.items()}
    _key(figure, any(paper.values()))  # before the labels, which need the final layout
    palette = colours(name for regimes in tables.values() for name in regimes)
    for axes, (dataset, regimes) in zip(panels, tables.items(), strict=True):
        points = {
            name: (runs[0]["parameters"]["trainable"], spread(runs, "pooled_dice"))
            for name, runs in regimes.items()
            if (runs[0].get("parameters") or {}).get("trainable")
        }
        dress(axes, dataset_title(dataset), "trained parameters", "pooled Dice")
        _scatter(axes, points, paper[dataset], palette)
    return figure


def _bars(axes: Axes, regimes: Regimes, palette: Mapping[str, str]) -> None:
    groups = measures(regimes)
    width = GROUP_WIDTH / len(regimes)
    for place, (name, runs) in enumerate(regimes.items()):
        shift = (place - (len(regimes) - 1) / 2) * width
        values = [spread(runs, measure) for measure in groups]
        at = [group + shift for group in range(len(groups))]
        axes.bar(at, [v.mean for v in values], 0.92 * width, color=palette[name])
        for x, value in zip(at, values, strict=True):
            axes.plot([x] * len(value.values), value.values, **DOT)
            _write_value(axes, x, value.mean, palette[name], len(regimes) * len(groups))
    axes.set_xticks(range(len(groups)), [measure_title(name) for name in groups])
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(0, 1.03)


def _write_value(axes: Axes, x: float, value: float, colour: str, bars: int) -> None:
    """Write a bar's height upright into its foot, or above a bar that is too short."""
    if math.isnan(value):
        return
    inside = value > 0.25
    axes.text(
        x,
        0.03 if inside else value + 0.06,
        f"{value:.3f}",
        rotation=90 if bars > 12 else 0,
        ha="center",
        va="bottom",
        fontsize=9,
        color=_ink(colour) if inside else "black",
    )


def _ink(colour: str) -> str:
    """Return black or white, whichever reads better on a colour."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _scatter(
    axes: Axes,
    points: Mapping[str, tuple[int, Any]],
    paper: Mapping[str, tuple[int, float]],
    palette: Mapping[str, str],
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for x, y in paper.values():
        axes.plot(x, y, "D", color=PAPER_GREY, markersize=5, markerfacecolor="white")
    for name, (x, y) in points.items():
        bar = 0.0 if math.isnan(y.std) else y.std
        axes.errorbar(x, y.mean, yerr=bar, fmt="o", color=palette[name], markersize=8, capsize=3)
    axes.set_xscale("log")
    everything = [x for x, _ in (*points.values(), *paper.values())]
    if everything:
        axes.set_xlim(min(everything) / 1.5, max(everything) * 1.5)
    axes.margins(y=0.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: _count(count)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    labels = [(x, y.mean, regime_title(name), "black") for name, (x, y) in points.items()]
    labels += [(x, y, regime_title(name), PAPER_GREY) for name, (x, y) in paper.items()]
    axes.autoscale_view(scalex=False)
    axes.set_ylim(axes.get_ylim())
    label_points(axes, labels, _error_boxes(axes, points))


def _error_boxes(axes: Axes, points: Mapping[str, tuple[int, Any]]) -> list[Bbox]:
    """Return the error bars' places in pixels."""
    from matplotlib.transforms import Bbox

    boxes = []
    for x, y in points.values():
        if not math.isnan(y.std):
            ends = axes.transData.transform([(x, y.mean - y.std), (x, y.mean + y.std)])
            boxes.append(Bbox([ends[0] - (5, 2), ends[1] + (5, 2)]))
    return boxes


def _paper_points(dataset: str, regimes: Regimes) -> dict[str, tuple[int, float]]:
    """Return the paper's pooled Dice at our counts, for networks of the paper's size only."""
    paper = PAPER_TABLE_1.get(dataset, {}).get("pooled_dice", {})
    counts = {name: runs[0].get("parameters") or {} for name, runs in regimes.items()}
    return {
        name: (own["trainable"], paper[name])
        for name, own in counts.items()
        if name in paper and own.get("encoder") == PAPER_ENCODER_PARAMETERS
    }


def _count(count: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g} {letter}"
    return f"{count:g}"


def _key(figure: Figure, paper: bool) -> None:
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"marker": "o", "color": "black", "markersize": 8}
    handles: list[Any] = [Line2D([], [], linewidth=1.5, label="this study, mean ± std", **style)]
    if paper:
        style = {"marker": "D", "color": PAPER_GREY, "markersize": 5, "markerfacecolor": "white"}
        handles.append(Line2D([], [], linestyle="", label="the paper, other data", **style))
    figure.legend(handles=handles, loc="outside upper center", ncol=2, frameon=False, fontsize=10)


def _legend(figure: Figure, palette: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=c, label=regime_title(n)) for n, c in palette.items()]
    handles.append(Line2D([], [], label="single run", **DOT))
    figure.legend(handles=handles, loc="outside upper center", ncol=8, frameon=False, fontsize=10)
