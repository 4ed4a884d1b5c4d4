"""ablation.png: pooled Dice against rank, a line per scaling, the placements beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_ext.files import whole_file
from lora_ext.study.ablation_tables import MAIN, SCALING_TITLES
from lora_ext.study.drawing import dress, footnote, label_points, new_figure
from lora_ext.study.paper import dataset_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

# Okabe and Ito's palette, safe for colour-blind readers.
COLOURS = {"rank_stabilised": "#009E73", "classical": "#D55E00"}
PLACEMENT_COLOUR = "#0072B2"
BESIDE = 2**0.2  # placements stand right of their rank by this factor, its square, ...


def write_plot(summary: Mapping[str, Any], path: Path) -> Path:
    """Write the plot of an ablation.

    Args:
        summary: the content of ablation.json, with at least one finished run.
        path: the file to write.
    """
    with whole_file(path) as draft:
        draw(summary).savefig(draft, format="png")
    return path


def draw(summary: Mapping[str, Any]) -> Figure:
    """Draw mean pooled Dice against rank, single runs as dots.

    Args:
        summary: the content of ablation.json.

    Returns:
        A figure that belongs to no global state.
    """
    figure = new_figure(4.8, 7.5)
    axes = figure.subplots()
    rows = [row for row in summary["variants"] if row["runs"]]
    dress(axes, f"{dataset_title(summary['dataset'])}: adapters", "rank", "pooled Dice")
    _rank_axis(axes, rows)
    for scaling, title in SCALING_TITLES.items():
        _line(axes, [r for r in rows if r["scaling"] == scaling and r["default_placement"]], title)
    labels = _placements(axes, [row for row in rows if not row["default_placement"]])
    axes.margins(y=0.12)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper center", ncol=3, frameon=False, fontsize=10)
    footnote(figure, f"small dots: single runs; {summary['encoder']}".rstrip("; "))
    axes.autoscale_view(scalex=False)
    axes.set_ylim(axes.get_ylim())
    figure.canvas.draw()  # settles the layout, so that places in pixels are final
    label_points(axes, labels, _marker_boxes(axes))
    return figure


def _rank_axis(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import NullLocator

    ranks = sorted({row["rank"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    if ranks:
        axes.set_xlim(ranks[0] / 1.5, ranks[-1] * 1.5)


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draw one scaling at the bundle's own placement."""
    if not rows:
        return
    ordered = sorted(rows, key=lambda row: row["rank"])
    colour = COLOURS[ordered[0]["scaling"]]
    label = f"{title}: {', '.join(ordered[0]['targets'])}"
    means = [row["dice"][MAIN]["mean"] for row in ordered]
    ranks = [row["rank"] for row in ordered]
    axes.plot(ranks, means, "-o", color=colour, markersize=8, label=label)
    for row in ordered:
        _dots(axes, row["rank"], row, colour)


def _placements(
    axes: Axes, rows: Sequence[Mapping[str, Any]]
) -> list[tuple[float, float, str, str]]:
    """Draw the other placements; return their labels for `label_points`."""
    labels = []
    for place, row in enumerate(rows, start=1):
        x, y = row["rank"] * BESIDE**place, row["dice"][MAIN]["mean"]
        axes.plot(x, y, "D", color=PLACEMENT_COLOUR, markersize=8)
        _dots(axes, x, row, PLACEMENT_COLOUR)
        labels.append((x, y, ", ".join(row["targets"]), PLACEMENT_COLOUR))
    return labels


def _marker_boxes(axes: Axes) -> list[Bbox]:
    """Return the places of all means and dots in pixels, for labels to stay clear of."""
    from matplotlib.transforms import Bbox

    points = [axes.transData.transform(line.get_xydata()) for line in axes.lines]
    return [Bbox.from_bounds(x - 6, y - 6, 12, 12) for pixels in points for x, y in pixels]


def _dots(axes: Axes, x: float, row: Mapping[str, Any], colour: str) -> None:
    """Draw single runs over a variant's mean."""
    values = row["dice"][MAIN]["values"]
    style: dict[str, Any] = {"markersize": 4.5, "markeredgecolor": colour, "zorder": 3}
    axes.plot([x] * len(values), values, "o", color="white", **style)
