"""A segmentation over its image: image, ground truth and prediction in three planes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.metrics import compute_dice
from monai.utils import convert_to_numpy

from lora_ext.data.regions import Regions, labels_to_regions
from lora_ext.figures.planes import (
    PLANES,
    Plane,
    air_mask,
    busiest_slices,
    filled_box,
    grey_window,
    lps_spacing,
    to_lps,
)
from lora_ext.files import whole_file
from lora_ext.images.image_file import ImageFile, case_name, check_same_grid
from lora_ext.images.reader import open_image
from lora_ext.images.resampling import on_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLUMN_INCHES = 3.2
DOTS_PER_INCH = 120
BACKGROUND = "black"
# Okabe and Ito's palette, which colour-blind readers can tell apart, without its greys.
REGION_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#F0E442", "#D55E00", "#0072B2")
FILL_ALPHA = 0.4

Volume = np.ndarray | torch.Tensor
StrPath = str | os.PathLike[str]


def overlay_figure(
    image: Volume,
    truth: Volume | None,
    prediction: Volume,
    regions: Regions,
    *,
    affine: np.ndarray | None = None,
    title: str | None = None,
    channel: int = 0,
    channel_names: Sequence[str] | None = None,
    dice: bool = True,
) -> Figure:
    """Draw image, ground truth and prediction side by side in the three planes.

    The slices are those with most foreground in the ground truth, else in the prediction, else
    the middle ones. The patient's right is on the left, anterior and superior are up, and
    proportions are true in mm. Air, a constant border around the patient, is black whatever its
    value. Nested regions are all visible: the smaller is on top, and contours get thinner
    towards the top.

    Args:
        image: channels (C, H, W, D).
        truth: binary masks (R, H, W, D); None leaves the ground truth's column out.
        prediction: binary masks (R, H, W, D).
        regions: region name -> labels, in the order of the masks.
        affine: voxel to world (RAS+, mm), 4 x 4. Without it the axes are taken as RAS with
            1 mm, and no sides are written.
        title: written on top, usually the case's name.
        channel: index of the image channel to show.
        channel_names: the channels' names; the shown one heads the image's column.
        dice: write each region's Dice over the prediction.

    Returns:
        A matplotlib figure that belongs to no global state.

    Raises:
        ValueError: if shapes do not fit, or there is no such channel.
    """
    picture = _shown_channel(image, channel)
    masks = {"ground truth": truth, "prediction": prediction}
    layers = {name: convert_to_numpy(mask) > 0 for name, mask in masks.items() if mask is not None}
    _check_shapes(picture, layers, regions)
    heads = ["image" if channel_names is None else str(channel_names[channel]), *layers]
    if dice and truth is not None:
        heads[-1] += "\n" + _dice_line(layers["prediction"], layers["ground truth"], regions)

    grid = np.eye(4) if affine is None else np.asarray(affine)
    spacing = lps_spacing(grid)
    picture = to_lps(picture[None], grid)[0]
    turned = [to_lps(layer, grid) for layer in layers.values()]
    air = air_mask(picture)
    window = grey_window(picture[~air])
    picture = np.where(air, window[0], picture)
    x, y, z = filled_box(~air | np.concatenate(turned).any(axis=0))
    picture, cropped = picture[x, y, z], [layer[:, x, y, z] for layer in turned]
    figure, axes = _canvas(picture.shape, spacing, heads, title)
    _draw_planes(axes, picture, window, cropped, regions, spacing, affine is not None)
    _draw_legend(figure, list(regions))
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, whole or not at all.

    Args:
        figure: the figure.
        path: the file to write; its folder is made when it does not exist.
    """
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)


def _shown_channel(image: Volume, channel: int) -> np.ndarray:
    channels = convert_to_numpy(image)
    if channels.ndim != 4:
        raise ValueError(f"image: expected the shape (C, H, W, D), got {channels.shape}")
    if not 0 <= channel < len(channels):
        raise ValueError(f"channel: expected 0 to {len(channels) - 1}, got {channel}")
    return np.nan_to_num(channels[channel].astype(np.float32))


def _check_shapes(picture: np.ndarray, layers: Mapping[str, np.ndarray], regions: Regions) -> None:
    expected = (len(regions), *picture.shape)
    for name, layer in layers.items():
        if layer.shape != expected:
            raise ValueError(f"{name}: expected the shape {expected}, got {layer.shape}")


def _dice_line(prediction: np.ndarray, truth: np.ndarray, regions: Regions) -> str:
    scores = compute_dice(
        torch.from_numpy(prediction)[None].float(),
        torch.from_numpy(truth)[None].float(),
        include_background=True,
        ignore_empty=False,
    )
    values = [f"{name} {dice:.3f}" for name, dice in zip(regions, scores[0].tolist(), strict=True)]
    lines = [values[start : start + 3] for start in range(0, len(values), 3)]
    return "Dice " + "\n".join("  ".join(line) for line in lines)


def _canvas(
    shape: tuple[int, ...], spacing: tuple[float, ...], heads: list[str], title: str | None
) -> tuple[Figure, np.ndarray]:
    """Lay out one row per plane, as high as the plane is in mm, and one column per head."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    extent = tuple(size * mm for size, mm in zip(shape, spacing, strict=True))
    heights, widths = zip(*(plane.of(extent) for plane in PLANES), strict=True)
    inches_per_mm = COLUMN_INCHES / max(widths)
    rows = [height * inches_per_mm for height in heights]
    top = 0.3 + 0.18 * max(head.count("\n") for head in heads) + (0.3 if title else 0.0)
    left, bottom, gap = 0.3, 0.4, 0.05
    width = left + len(heads) * (COLUMN_INCHES + gap)
    height = top + sum(rows) + gap * (len(rows) - 1) + bottom
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    places = {
        "height_ratios": rows,
        "left": left / width,
        "right": 1 - gap / width,
        "bottom": bottom / height,
        "top": 1 - top / height,
        "wspace": gap / COLUMN_INCHES,
        "hspace": gap * len(rows) / sum(rows),
    }
    axes = figure.subplots(len(PLANES), len(heads), gridspec_kw=places, squeeze=False)
    _write_heads(figure, axes, heads)
    if title:
        figure.suptitle(title, color="white", fontsize=12, y=1 - 0.08 / height, va="top")
    return figure, axes


def _write_heads(figure: Figure, axes: np.ndarray, heads: Sequence[str]) -> None:
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, color="white", fontsize=10)
    x = 0.06 / figure.get_figwidth()
    for axis, plane in zip(axes[:, 0], PLANES, strict=True):
        middle = axis.get_position().y0 + axis.get_position().height / 2
        text = figure.text(x, middle, plane.name, color="white", fontsize=9)
        text.set(rotation=90, va="center")


def _draw_planes(
    axes: np.ndarray,
    picture: np.ndarray,
    window: tuple[float, float],
    layers: Sequence[np.ndarray],
    regions: Regions,
    spacing: tuple[float, ...],
    sides: bool,
) -> None:
    guide = next((layer for layer in layers if layer.any()), np.zeros((1, *picture.shape)))
    at = busiest_slices(guide)
    low, high = window
    for row, plane in zip(axes, PLANES, strict=True):
        rows_mm, columns_mm = plane.of(spacing)
        for axis, layer in zip(row, (None, *layers), strict=True):
            grey = plane.cut(picture, at[plane.axis])
            style = {"origin": plane.origin, "aspect": rows_mm / columns_mm}
            axis.imshow(grey, cmap="gray", interpolation="bilinear", vmin=low, vmax=high, **style)
            if layer is not None:
                _draw_regions(axis, plane.cut(layer, at[plane.axis]), regions, style)
            _dress(axis, plane, sides)


def _dress(axis: Axes, plane: Plane, sides: bool) -> None:
    from matplotlib.patheffects import withStroke

    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_facecolor(BACKGROUND)
    for spine in axis.spines.values():
        spine.set_visible(False)
    if sides:
        outline = [withStroke(linewidth=2, foreground=BACKGROUND)]
        for letter, x, align in zip(plane.sides, (0.02, 0.98), ("left", "right"), strict=True):
            text = axis.text(x, 0.98, letter, color="white", fontsize=9, ha=align, va="top")
            text.set(transform=axis.transAxes, path_effects=outline)


def region_colours(regions: Sequence[str]) -> dict[str, str]:
    """Return each region's colour; it depends on the order of the regions only.

    Args:
        regions: region names.
    """
    count = len(REGION_COLOURS)
    return {name: REGION_COLOURS[index % count] for index, name in enumerate(regions)}


def _draw_regions(axis: Axes, masks: np.ndarray, regions: Regions, style: dict[str, Any]) -> None:
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


def _draw_legend(figure: Figure, regions: Sequence[str]) -> None:
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


def overlay_from_files(
    image_path: StrPath,
    truth_path: StrPath | None,
    prediction_path: StrPath,
    regions: Regions,
    out: StrPath,
    *,
    channel: int = 0,
    channel_names: Sequence[str] | None = None,
) -> Path:
    """Draw a segmentation file over its image, beside the ground truth where there is one.

    Args:
        image_path: image (H, W, D) or (H, W, D, C): a NIfTI, NRRD or MetaImage file, or the folder
            of a DICOM series.
        truth_path: label map (H, W, D); None where there is no ground truth.
        prediction_path: label map (H, W, D).
        regions: region name -> the labels it is made of.
        out: the PNG file to write.
        channel: index of the image channel to show.
        channel_names: the channels' names, for the picture.

    Returns:
        The path of the picture.

    Raises:
        ValueError: if a file is no image or has another shape or affine than the image, or there
            is no such channel.
        FileNotFoundError: if there is no such file.
    """
    image = _open(image_path)
    values = image.read().astype(np.float32, copy=False)
    channels = values[None] if values.ndim == 3 else np.moveaxis(values, -1, 0)
    truth = None if truth_path is None else _masks(truth_path, image, regions)
    prediction = _masks(prediction_path, image, regions)
    figure = overlay_figure(
        *(channels, truth, prediction, regions),
        affine=image.affine,
        title=case_name(prediction_path),
        channel=channel,
        channel_names=channel_names,
    )
    save_figure(figure, out)
    return Path(out)


def _open(path: StrPath) -> ImageFile:
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: found no such file")
    return open_image(os.fspath(path))


def _masks(path: StrPath, image: ImageFile, regions: Regions) -> torch.Tensor:
    """Read a label map on the image's grid as binary regions (R, H, W, D)."""
    labels = _open(path)
    if labels.segments is None:
        check_same_grid(image, labels)
    found = on_image(labels, image, labels.read())
    values = torch.from_numpy(np.rint(found.astype(np.float32)))
    return labels_to_regions(values.reshape(1, *image.shape[:3]), regions)
