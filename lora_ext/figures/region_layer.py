"""The coloured layer over a slice: fill, contours and the legend that names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_ext.data.regions import Regions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Okabe and Ito's palette, which colour-blind readers can tell apart, without its greys.
REGION_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#F0E442", "#D55E00", "#0072B2")
FILL_ALPHA = 0.4


def region_colours(regions: Sequence[str]) -> dict[str, str]:
    """Return each region's colour; it depends on the order of the regions only.

    Args:
        regions: region names.
    """
    count = len(REGION_COLOURS)
    return {name: REGION_COLOURS[index % count] for index, name in enumerate(regions)}


def draw_regions(axis: Axes, masks: np.ndarray, regions: Regions, style: dict[str, Any]) -> None:
    """Fill and outline the regions of one slice, the largest at the bottom.

    Args:
        axis: where to draw.
        masks: boolean array (R, rows, columns).
        regions: region name -> labels, in the order of the masks.
        style: `origin` and `aspect` of the picture below.
    """
    from matplotlib.colors import to_rgba

    colours = list(region_colours(list(regions)).values())
    labels = [set(values) for values in regions.values()]
    inside = [sum(other < own for other in labels) for own in labels]
    fill = np.zeros((*masks.shape[1:], 4))
    # By labels, not by voxels: the order is the same in every slice, whatever was predicted.
    for index in sorted(range(len(masks)), key=lambda index: -inside[index]):
        fill[masks[index]] = to_rgba(colours[index], FILL_ALPHA)
        if masks[index].any():
            _outline(axis, masks[index], colours[index], inside[index])
    axis.imshow(fill, interpolation="nearest", **style)


def _outline(axis: Axes, mask: np.ndarray, colour: str, inside: int) -> None:
    """Draw a contour, thicker and a part of a voxel further out the more regions are inside.

    So it stays visible where the contour of an inner region coincides with it.
    """
    # A border of background closes the contour of a region at the picture's edge.
    y, x = (np.arange(-1, size + 1) for size in mask.shape)
    padded = np.pad(mask, 1).astype(float)
    level, width = max(0.5 - 0.2 * inside, 0.05), 1.0 + 0.7 * inside
    axis.contour(x, y, padded, levels=[level], colors=[colour], linewidths=width)


def draw_legend(figure: Figure, regions: Sequence[str]) -> None:
    """Name the regions' colours at the bottom of the figure.

    Args:
        figure: the figure.
        regions: region names.
    """
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=name) for name, colour in region_colours(regions).items()]
    figure.legend(
        handles=patches,
        loc="lower center",
        ncol=len(patches),
        frameon=False,
        labelcolor="white",
        fontsize=10,
    )
