"""From NIfTI files to a picture: the last step of the demo, and a verb for users."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from lora_ext.data.regions import Regions, labels_to_regions
from lora_ext.data.task import case_name
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
        image_path: NIfTI image (H, W, D) or (H, W, D, C).
        truth_path: NIfTI label map (H, W, D); None when there is no truth.
        prediction_path: NIfTI label map (H, W, D).
        regions: region name -> the labels it is made of.
        out: the PNG file to write.
        channel: index of the image channel to show.
        channel_names: the channels' names, for the picture.

    Returns:
        The path of the picture.

    Raises:
        ValueError: a file is no NIfTI or has another shape or affine than the image, or there
            is no such channel.
        FileNotFoundError: there is no such file.
    """
    image = _load(image_path)
    values = np.asarray(image.dataobj, dtype=np.float32)
    channels = values[None] if values.ndim == 3 else np.moveaxis(values, -1, 0)
    truth = None if truth_path is None else _masks(truth_path, image_path, image, regions)
    prediction = _masks(prediction_path, image_path, image, regions)
    figure = overlay_figure(
        *(channels, truth, prediction, regions),
        affine=image.affine,
        title=case_name(prediction_path),
        channel=channel,
        channel_names=channel_names,
    )
    save_figure(figure, out)
    return Path(out)


def _load(path: StrPath) -> nib.Nifti1Image:
    try:
        image = nib.load(path)
    except nib.filebasedimages.ImageFileError as error:
        raise ValueError(f"{path}: cannot be read as an image; .nii or .nii.gz expected") from error
    if not isinstance(image, nib.Nifti1Image):
        raise ValueError(f"{path}: found {type(image).__name__}; .nii or .nii.gz expected")
    return image


def _masks(
    path: StrPath, image_path: StrPath, image: nib.Nifti1Image, regions: Regions
) -> torch.Tensor:
    """Read a label map on the image's grid as binary regions (R, H, W, D)."""
    labels = _load(path)
    if labels.shape != image.shape[:3]:
        raise ValueError(f"{path}: shape {labels.shape}; {image_path} has {image.shape[:3]}")
    if not np.allclose(labels.affine, image.affine, atol=1e-3):
        raise ValueError(f"{path}: another affine than {image_path}; they must lie on one grid")
    values = torch.from_numpy(np.rint(np.asarray(labels.dataobj, dtype=np.float32)))
    return labels_to_regions(values[None], regions)
