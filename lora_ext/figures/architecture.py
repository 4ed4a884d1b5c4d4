"""The network as one picture for the README: what each part does, and which parts are trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]

WIDTH, HEIGHT = 10.0, 5.9  # inches; positions below are inches from the lower left corner
# Fill and edge, from Okabe and Ito's palette, which colour-blind readers can tell apart.
FROZEN = ("#D3E7F5", "#0072B2")
TRAINED = ("#FCE3B0", "#A85F00")
DATA = ("#F2F2F2", "#555555")
TEXT = 10.0  # points
CHANNELS = ("FLAIR", "T1w", "T1gd", "T2w")
REGIONS = ("TC", "WT", "ET")
RAW_ROW = 5.15
# One row per tap: its height, the encoder's blocks before it, the size of its decoder level.
TAPS = (
    (3.78, "blocks 1-4", "1/2"),
    (3.12, "blocks 5-7", "1/4"),
    (2.46, "blocks 8-10", "1/8"),
    (1.80, "blocks 11-12", "1/16"),
)
BOX = 0.46  # height of a box in a row


def architecture_figure() -> Figure:
    """Draw the channel-wise LoRA UNETR: encoder, adapters, fusion and decoder.

    The example has four channels and three regions, and shows the regime ``lora``.

    Returns:
        A matplotlib figure that belongs to no global state.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.set_axis_off()
    _draw_volumes(axes)
    _draw_encoder(axes)
    _draw_fusion(axes)
    _draw_decoder(axes)
    _draw_formula(axes)
    _draw_key(axes)
    return figure


def _draw_volumes(axes: Axes) -> None:
    """Draw the image's channels on the left and the regions' maps on the right."""
    _stack(axes, (0.15, 4.72), CHANNELS)
    _write(axes, (0.75, 4.6), "image\nC channels", va="top")
    _stack(axes, (8.75, 4.77), REGIONS)
    _write(axes, (9.3, 4.6), "one sigmoid map\nper region", va="top")


def _draw_encoder(axes: Axes) -> None:
    left, width, bottom = 1.75, 3.0, 1.47
    _box(axes, (left, bottom), (width, 3.2), "", FROZEN)
    _write(axes, (left + width / 2, 4.58), "shared ViT encoder", va="top", weight="bold")
    _write(axes, (left + width / 2, 4.36), "each channel on its own, same weights", va="top")
    for y, blocks, _ in TAPS:
        _write(axes, (left + 0.1, y), blocks, ha="left")
        for index in range(len(CHANNELS)):
            corner = (left + 1.17 + 0.45 * index, y - BOX / 2)
            pair = f"$A_{index + 1}$\n$B_{index + 1}$"
            _box(axes, corner, (0.39, BOX), pair, TRAINED, size=9)
    for (above, *_), (below, *_) in pairwise(TAPS):
        _arrow(axes, (left + 0.5, above - 0.12), (left + 0.5, below + 0.14))
    _line(axes, (0.75, 4.12), (0.75, TAPS[0][0]))
    _arrow(axes, (0.75, TAPS[0][0]), (left, TAPS[0][0]))
    note = "C volumes of\none channel,\nin patches of\n$16^3$ voxels"
    _write(axes, (0.15, TAPS[0][0] - 0.12), note, va="top", ha="left")


def _draw_fusion(axes: Axes) -> None:
    _write(axes, (5.95, 4.58), "channel fusion", va="top", weight="bold")
    for y, _, _ in TAPS:
        # One line per channel: the latents stay apart up to the fusion.
        for index in range(len(CHANNELS)):
            offset = 0.09 * (index - 1.5)
            _line(axes, (4.75, y + offset), (5.2, y + offset))
        _box(
            axes,
            (5.2, y - BOX / 2),
            (1.5, BOX),
            r"Linear(C$\cdot$768$\rightarrow$768)",
            TRAINED,
            size=9.5,
        )
    _write(axes, (4.85, TAPS[-1][0] - 0.28), "4 taps, each with C latents", va="top", ha="left")


def _draw_decoder(axes: Axes) -> None:
    left, width = 7.15, 1.25
    _write(axes, (8.52, 2.95), "UNETR decoder", ha="left", weight="bold")
    _write(axes, (8.52, 2.84), "upsample, join,\nconvolve", ha="left", va="top")
    rows = [(RAW_ROW, "full"), *((y, size) for y, _, size in TAPS)]
    for y, size in rows:
        _box(axes, (left, y - BOX / 2), (width, BOX), f"{size} H, W, D", TRAINED)
    for (upper, _), (lower, _) in pairwise(rows):
        x = left + width / 2
        _arrow(axes, (x, lower + BOX / 2), (x, upper - BOX / 2))
    for y, _, _ in TAPS:
        _arrow(axes, (6.7, y), (left, y))
    _arrow(axes, (1.42, RAW_ROW), (left, RAW_ROW))
    _write(axes, (4.2, RAW_ROW + 0.07), "skip: the raw image, all C channels", va="bottom")
    _arrow(axes, (left + width, RAW_ROW), (8.75, RAW_ROW))


def _draw_formula(axes: Axes) -> None:
    """Write the adapted linear layer, each part in the colour of its box."""
    from matplotlib.offsetbox import AnnotationBbox, HPacker, TextArea

    _write(axes, (0.15, 0.9), "adapted layers, channel c:", ha="left", weight="bold")
    parts = (
        (r"$y_c \,=$", "black"),
        (r"$W x_c + b$", FROZEN[1]),
        ("$+$", "black"),
        (r"$\frac{\alpha}{\sqrt{r}}\; B_c\, A_c\, x_c$", TRAINED[1]),
    )
    texts: list[Any] = [
        TextArea(part, textprops={"color": colour, "size": 15}) for part, colour in parts
    ]
    row = HPacker(children=texts, align="baseline", pad=0, sep=5)
    box = AnnotationBbox(row, (2.45, 0.9), box_alignment=(0, 0.5), frameon=False, pad=0)
    axes.add_artist(box)
    note = "in every block: attention output and first MLP layer; r is the rank"
    _write(axes, (0.15, 0.42), note, ha="left")


def _draw_key(axes: Axes) -> None:
    for y, colours, meaning in (
        (0.9, FROZEN, "frozen, pre-trained once for all channels"),
        (0.42, TRAINED, "trained; one pair $A_c$, $B_c$ per channel"),
    ):
        _box(axes, (6.0, y - 0.12), (0.36, 0.24), "", colours)
        _write(axes, (6.5, y), meaning, ha="left")


def _stack(axes: Axes, corner: Point, names: Sequence[str]) -> None:
    """Draw one sheet per name, the first in front."""
    for index in reversed(range(len(names))):
        x, y = corner[0] + 0.14 * index, corner[1] + 0.2 * index
        _box(axes, (x, y), (0.78, 0.5), "", DATA)
        _write(axes, (x + 0.06, y + 0.4), names[index], ha="left", size=9)


def _box(
    axes: Axes, corner: Point, extent: Point, text: str, colours: tuple[str, str], **style: Any
) -> None:
    from matplotlib.patches import FancyBboxPatch

    fill, edge = colours
    shape = "round,pad=0,rounding_size=0.05"
    axes.add_patch(FancyBboxPatch(corner, *extent, boxstyle=shape, fc=fill, ec=edge, lw=1.3))
    if text:
        _write(axes, (corner[0] + extent[0] / 2, corner[1] + extent[1] / 2), text, **style)


def _write(axes: Axes, at: Point, text: str, **style: Any) -> None:
    axes.text(*at, text, **{"ha": "center", "va": "center", "size": TEXT, **style})


def _line(axes: Axes, start: Point, end: Point) -> None:
    axes.plot(*zip(start, end, strict=True), color="#333333", linewidth=1.2)


def _arrow(axes: Axes, start: Point, end: Point) -> None:
    style = {"arrowstyle": "-|>", "color": "#333333", "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
