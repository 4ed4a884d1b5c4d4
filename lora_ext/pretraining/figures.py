"""Pictures of a reconstruction: input, what the encoder saw, what was predicted, patch means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from monai.utils import convert_to_numpy
from torch import Tensor

from lora_ext.evaluation.planes import PLANES, busiest_slices, grey_window, to_lps
from lora_ext.pretraining.patches import from_patches, patch_statistics, to_patches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCHES = 2.4  # width of a picture
HEAD_INCHES = 0.7  # title and heads
HIDDEN = "#7a1f1f"  # no grey value, so that a hidden patch is not taken for a dark one
RAS = np.eye(4)  # the bundle's preprocessing leaves volumes in this orientation


def reconstruct(volume: Tensor, patches: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Put predictions into the volume.

    The network predicts a patch's detail, and neither its mean nor its contrast; as in He et al.
    2022, both are taken from the input. `means` shows what that alone would look like.

    Args:
        volume: the input, shape (B, 1, H, W, D).
        patches: predicted patches, shape (B, N, 4096).
        mask: shape (B, N), 1 where hidden.

    Returns:
        Volumes (B, 1, H, W, D): ``hidden`` (1 where hidden), ``reconstruction`` (visible patches
        as they are, hidden ones predicted) and ``means`` (hidden ones by their mean alone).
    """
    size = (volume.shape[2], volume.shape[3], volume.shape[4])
    own = to_patches(volume.float())
    mean, deviation = patch_statistics(own)
    hidden = mask.unsqueeze(-1).to(own.dtype).expand_as(own)
    predicted = patches.float() * deviation + mean
    return {
        "hidden": from_patches(hidden, size),
        "reconstruction": from_patches(own * (1 - hidden) + predicted * hidden, size),
        "means": from_patches(own * (1 - hidden) + mean * hidden, size),
    }


def reconstruction_figure(volume: Tensor, parts: dict[str, Tensor], title: str) -> Figure:
    """Draw one volume in three planes.

    Args:
        volume: the input, shape (1, H, W, D), axes RAS.
        parts: what `reconstruct` gives for it, each (1, H, W, D).
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
    at = busiest_slices((whole != whole.flat[0])[None])
    low, high = grey_window(whole)
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
