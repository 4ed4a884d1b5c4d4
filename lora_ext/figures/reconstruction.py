"""Pictures of a reconstruction: input, what the encoder saw, what was predicted, patch means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from monai.utils import convert_to_numpy
from torch import Tensor

from lora_ext.figures.planes import PLANES, air_mask, busiest_slices, grey_window, to_lps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


INCHES = 2.4  # width of a picture
HEAD_INCHES = 0.7  # title and heads
HIDDEN = "#7a1f1f"  # a colour, so that a hidden patch is not taken for a dark one
RAS = np.eye(4)  # the bundle's preprocessing leaves volumes in this orientation


def reconstruction_figure(volume: Tensor, parts: dict[str, Tensor], title: str) -> Figure:
    """Draw one volume in three planes.

    Args:
        volume: the input, shape (1, H, W, D), axes RAS.
        parts: ``hidden`` (1 where hidden), ``reconstruction`` and ``means``, each (1, H, W, D).
        title: written on top.

    Returns:
        A matplotlib figure that belongs to no global state.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    turned = {name: _turned(part) for name, part in {"input": volume, **parts}.items()}
    hidden = turned.pop("hidden") > 0
    pictures = {
        "input": turned["input"],
        "visible to the encoder": np.ma.array(turned["input"], mask=hidden),
        "reconstruction": turned["reconstruction"],
        "patch means alone": turned["means"],
    }
    heights = [
        INCHES * rows / columns for rows, columns in (p.of(volume.shape[1:]) for p in PLANES)
    ]
    size = (len(pictures) * INCHES, sum(heights) + HEAD_INCHES)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(PLANES), len(pictures), height_ratios=heights)
    _draw(axes, pictures)
    figure.suptitle(title, fontsize=10)
    return figure


def _draw(axes: np.ndarray, pictures: dict[str, np.ndarray]) -> None:
    from matplotlib import colormaps

    whole = pictures["input"]
    filled = ~air_mask(whole)
    at = busiest_slices(filled[None])
    low, high = grey_window(whole[filled])
    grey = colormaps["gray"].with_extremes(bad=HIDDEN)
    for row, plane in zip(axes, PLANES, strict=True):
        row[0].set_ylabel(plane.name, fontsize=9)
        for axis, (name, picture) in zip(row, pictures.items(), strict=True):
            gone = plane.cut(np.ma.getmaskarray(picture), at[plane.axis])  # np.take drops masks
            cut = np.ma.array(plane.cut(np.ma.getdata(picture), at[plane.axis]), mask=gone)
            axis.imshow(cut, cmap=grey, vmin=low, vmax=high, origin=plane.origin)
            axis.set_xticks([])
            axis.set_yticks([])
            if plane is PLANES[0]:
                axis.set_title(name, fontsize=9)


def _turned(volume: Tensor) -> np.ndarray:
    return to_lps(convert_to_numpy(volume).astype(np.float32), RAS)[0]
