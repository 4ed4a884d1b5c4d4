"""NIfTI files, through nibabel."""

from __future__ import annotations

import gzip
import zlib

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError

from lora_ext.images.image_file import ImageFile, damaged

_UNREADABLE = (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError)


def open_nifti(path: str) -> ImageFile:
    """Open a NIfTI file.

    Args:
        path: a .nii or .nii.gz file.

    Returns:
        The image; reading its voxels compares gzip's checksum too.

    Raises:
        ValueError: a file that nibabel cannot read as NIfTI, or voxels that are no real numbers.
    """
    try:
        image = nib.load(path)
    except _UNREADABLE as error:
        raise damaged(path, error) from error
    if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is one too
        raise ValueError(f"{path}: expected a NIfTI image, got a {type(image).__name__}")
    dtype = image.get_data_dtype()
    if dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected voxels of real numbers, got {dtype}")
    return ImageFile(path, image.shape, image.affine, lambda: _voxels(path, type(image)))


def _voxels(path: str, kind: type[nib.Nifti1Image]) -> np.ndarray:
    try:
        with gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb") as stream:
            copy = kind.from_file_map({"image": FileHolder(fileobj=stream)})
            voxels = np.asanyarray(copy.dataobj)
            stream.read()  # nibabel stops before the end, where gzip compares the checksum
    except _UNREADABLE as error:
        raise damaged(path, error) from error
    return voxels
