"""What all plots share: a figure without global state, colours, labels that do not overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import hypot
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

from lora_ext.bundles.generator import REGIMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

WIDTH_INCHES = 10.0
DOTS_PER_INCH = 150
GRID = "#DDDDDD"
PAPER_GREY = "#8A8A8A"
# Okabe and Ito's palette, safe for colour-blind readers; the ranks are one hue, light to dark.
REGIME_COLOURS = dict(
    zip(
        REGIMES,
        ("#9A9A9A", "#0072B2", "#56B4E9", "#7FD3B5", "#009E73", "#00513B"),
        strict=True,
    )
)
OTHER_COLOURS = ("#D55E00", "#CC79A7", "#E69F00", "#F0E442", "#000000")
# Where a label may stand, in points from its point, the best first.
OFFSETS = tuple(
    (x * reach, y * reach)
    for reach in (9, 14, 20, 27, 35, 44)
    for x, y in (
        (1, 0),
        (-1, 0),
        (0.8, 0.6),
        (-0.8, 0.6),
        (0.8, -0.6),
        (-0.8, -0.6),
        (0, 1),
        (0, -1),
    )
)
FAR = 10  # points; a label further away gets a line to its point


def new_figure(
    height: float,
    width: float = WIDTH_INCHES,
    layout: Literal["constrained"] | None = "constrained",
) -> Figure:
    """Return an empty figure that belongs to no global state.

    Args:
        height: in inches.
        width: in inches.
        layout: None for axes that are placed by hand.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return each regime's colour; those of the paper's regimes never change.

    Args:
        names: regimes and references.
    """
    known = list(dict.fromkeys(names))
    others = [name for name in known if name not in REGIME_COLOURS]
    extra = {name: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, name in enumerate(others)}
    return {name: (REGIME_COLOURS | extra)[name] for name in known}


def dress(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """Give axes a title, axis labels and a light grid behind the data.

    Args:
        axes: where.
        title: above, to the left.
        x: label of the horizontal axis.
        y: label of the vertical axis.
    """
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel(x, fontsize=11)
    axes.set_ylabel(y, fontsize=11)
    axes.tick_params(labelsize=10)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def footnote(figure: Figure, text: str) -> None:
    """Write a note in small print below everything else; an empty one is left out.

    Args:
        figure: a figure with a constrained layout, which makes room for the note.
        text: broken into lines as needed.
    """
    if text:
        lines = wrap(text, int(14 * figure.get_figwidth()))  # letters per inch in this size
        note = figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8)
        note.set(color="#444444", parse_math=False)  # a file's name may hold a $


def label_points(
    axes: Axes, points: Sequence[tuple[float, float, str, str]], taken: Sequence[Bbox] = ()
) -> None:
    """Write a label beside each point, each at the nearest free place.

    Args:
        axes: where; its limits must be final.
        points: x, y, text and colour, in data coordinates.
        taken: places in pixels that must stay free, such as error bars.
    """
    from matplotlib.transforms import Bbox

    figure = axes.get_figure(root=True)
    if figure is None:
        return
    figure.canvas.draw()  # settles the layout, so that pixels are final
    pixels = [axes.transData.transform((x, y)) for x, y, _, _ in points]
    placed = [*taken, *(Bbox.from_bounds(x - 8, y - 8, 16, 16) for x, y in pixels)]
    for x, y, text, colour in points:
        line = {"arrowstyle": "-", "color": GRID, "shrinkA": 0, "shrinkB": 3}
        label = axes.annotate(
            text, (x, y), (0, 0), textcoords="offset points", fontsize=9, arrowprops=line
        )
        label.set(color=colour, annotation_clip=False, in_layout=False)
        costs = [
            (_cost(_move(label, offset), placed, axes.bbox), place)
            for place, offset in enumerate(OFFSETS)
        ]
        offset = OFFSETS[min(costs)[1]]
        placed.append(_move(label, offset))
        if label.arrow_patch is not None:
            label.arrow_patch.set_visible(hypot(*offset) > FAR)


def _move(label: Annotation, offset: tuple[float, float]) -> Bbox:
    """Put a label at an offset and return the text's place in pixels."""
    from matplotlib.text import Text

    label.set_position(offset)
    label.set_horizontalalignment(_side(offset[0], "left", "right"))
    label.set_verticalalignment("center" if offset[0] else _side(offset[1], "bottom", "top"))
    label.get_window_extent()  # brings the text and the line to their place
    return Text.get_window_extent(label)  # the text without the line


def _cost(box: Bbox, placed: Sequence[Bbox], inside: Bbox) -> int:
    """Count what a label would cover; to leave the axes is worst."""
    outside = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
    return sum(box.overlaps(other) for other in placed) + 10 * outside


def _side(offset: float, positive: Any, negative: Any) -> Any:
    return positive if offset > 0 else negative if offset < 0 else "center"
