"""From image files to a picture: the last step of the demo, and a verb for users."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lora_ext.data.formats import case_name
from lora_ext.data.image_file import ImageFile, check_same_grid
from lora_ext.data.images import open_image
from lora_ext.data.regions import Regions, labels_to_regions
from lora_ext.evaluation.figures import overlay_figure, save_figure

StrPath = str | os.PathLike[str]


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
    """Draw a segmentation file over its image, beside the true one where there is one.

    Args:
        image_path: image (H, W, D) or (H, W, D, C): a NIfTI, NRRD or MetaImage file, or the folder
            of a DICOM series.
        truth_path: label map (H, W, D); None when there is no truth.
        prediction_path: label map (H, W, D).
        regions: region name -> the labels it is made of.
        out: the PNG file to write.
        channel: index of the image channel to show.
        channel_names: the channels' names, for the picture.

    Returns:
        The path of the picture.

    Raises:
        ValueError: a file is no image or has another shape or affine than the image, or there
            is no such channel.
        FileNotFoundError: there is no such file.
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
    check_same_grid(image, labels)
    values = torch.from_numpy(np.rint(labels.read().astype(np.float32)))
    return labels_to_regions(values.reshape(1, *image.shape[:3]), regions)
