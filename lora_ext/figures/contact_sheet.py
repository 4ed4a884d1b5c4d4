"""Every case of a data set at a glance: three slices each, its labels outlined."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import minimum_filter, zoom

from lora_ext.figures.overlay import BACKGROUND, REGION_COLOURS, save_figure
from lora_ext.figures.planes import (
    PLANES,
    air_mask,
    busiest_slices,
    filled_box,
    grey_window,
    lps_spacing,
    to_lps,
)

TILE = 160  # pixels that the longest side of a case gets
PER_ROW = 4
MOST_ROWS = 200  # of a sheet; the page shows every case
STRIP_INCHES = 3.6


def case_strip(image: np.ndarray, label: np.ndarray | None, affine: np.ndarray) -> np.ndarray:
    """Draw the axial, coronal and sagittal slice with most labelled voxels, side by side.

    The patient's right is on the left, anterior and superior are up, and proportions are true in
    mm. Labels are outlined, the colours by label value.

    Args:
        image: one channel (H, W, D), finite.
        label: label map (H, W, D); None without one.
        affine: voxel to world (RAS+, mm), (4, 4).

    Returns:
        The picture, (rows, columns, 3), uint8.
    """
    picture = to_lps(image[None].astype(np.float32, copy=False), affine)[0]
    labels = np.zeros(picture.shape, np.uint8)
    if label is not None:
        labels = to_lps(label[None].astype(np.uint8), affine)[0]
    air = air_mask(picture)
    low, high = grey_window(picture[~air])
    box = filled_box(~air | (labels > 0))
    grey = (np.clip((picture[box] - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
    labels = labels[box]
    spacing = lps_spacing(affine)
    scale = TILE / max(size * mm for size, mm in zip(grey.shape, spacing, strict=True))
    at = busiest_slices(labels[None] > 0)
    tiles = []
    for plane in PLANES:
        zoomed = [mm * scale for mm in plane.of(spacing)]
        slices = [plane.cut(volume, at[plane.axis]) for volume in (grey, labels)]
        tiles.append(_tile(slices[0], slices[1], zoomed, upside_down=plane.origin == "lower"))
    height = max(len(tile) for tile in tiles)
    padded = [np.pad(t, ((0, height - len(t)), (0, 4), (0, 0))) for t in tiles]
    return np.concatenate(padded, axis=1)


def strip_png(strip: np.ndarray) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    from matplotlib.image import imsave

    stream = io.BytesIO()
    imsave(stream, strip, format="png")
    return stream.getvalue()


def write_contact_sheet(path: Path, strips: Mapping[str, np.ndarray]) -> int:
    """Write the sheet as PNG.

    Args:
        path: the file.
        strips: pictures of `case_strip` by case; a case's name may be followed by a remark.

    Returns:
        How many cases are on it: all, or as many as `MOST_ROWS` rows hold.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = list(strips.items())[: PER_ROW * MOST_ROWS]
    columns = min(PER_ROW, len(shown))
    rows = math.ceil(len(shown) / columns)
    tallest = max(len(strip) / strip.shape[1] for _, strip in shown)
    size = (columns * STRIP_INCHES, rows * (STRIP_INCHES * tallest + 0.25))
    figure = Figure(figsize=size, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(0.005, 0.005, 0.995, 1 - 0.2 / size[1], wspace=0.02, hspace=0.15)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, strip) in zip(axes.flat, shown, strict=False):
        axis.imshow(strip, interpolation="nearest")
        axis.set_title(name, color="white", fontsize=8, pad=2)
    save_figure(figure, path)
    return len(shown)


def label_colours(values: Sequence[int]) -> dict[int, str]:
    """Return the colour of each label value's outline."""
    return {value: REGION_COLOURS[(value - 1) % len(REGION_COLOURS)] for value in values}


def _tile(
    grey: np.ndarray, labels: np.ndarray, zoomed: Sequence[float], upside_down: bool
) -> np.ndarray:
    """Enlarge a slice to true proportions and outline its labels."""
    from matplotlib.colors import to_rgb

    large = zoom(grey, zoomed, order=1, grid_mode=True, mode="nearest")
    outlined = zoom(labels, zoomed, order=0, grid_mode=True, mode="nearest")
    picture = np.repeat(large[..., None], 3, axis=2)
    for value, colour in label_colours(np.unique(outlined[outlined > 0]).tolist()).items():
        mask = outlined == value
        edge = mask & ~minimum_filter(mask, 3, mode="constant", cval=0)
        picture[edge] = np.multiply(to_rgb(colour), 255).astype(np.uint8)
    return picture[::-1] if upside_down else picture
