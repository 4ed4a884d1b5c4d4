"""NIfTI files, through nibabel."""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError

from lora_ext.images.image_file import ImageFile, damaged

_UNREADABLE = (
    ImageFileError, HeaderDataError, OSError, EOFError, OverflowError, ValueError, zlib.error,
)  # fmt: skip
_MM = {"meter": 1000.0, "micron": 0.001}  # of the units that nibabel names; all others are mm


def open_nifti(path: str) -> ImageFile:
    """Open a NIfTI file, or the header of a pair of files.

    A length in metres or micrometres is turned into mm, as ITK does. ITK and ANTs put channels on
    the fifth axis, (H, W, D, 1, C): they come back as (H, W, D, C).

    Args:
        path: a .nii or .nii.gz file, or a .hdr file with its .img file beside it.

    Returns:
        The image; reading its voxels compares gzip's checksum too.

    Raises:
        ValueError: a file that nibabel cannot read as NIfTI, voxels that are no real numbers, or a
            header that places the image nowhere.
    """
    try:
        image = nib.load(path)
    except _UNREADABLE as error:
        raise damaged(path, error) from error
    if not isinstance(image, nib.Nifti1Pair):  # every kind of NIfTI is one
        raise ValueError(f"{path}: expected a NIfTI image, got a {type(image).__name__}")
    dtype = image.get_data_dtype()
    if dtype.kind not in "biuf":
        found = "colours" if dtype.names else dtype
        raise ValueError(f"{path}: expected voxels of real numbers, got {found}")
    shape = image.shape
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])
    affine, qform = _affines(path, image)
    return ImageFile(path, shape, affine, lambda: _voxels(path, type(image)).reshape(shape), qform)


def image_file(path: str) -> str:
    """Return the path of the file that holds the voxels of a NIfTI file or header.

    Args:
        path: a .nii, .nii.gz or .hdr file.

    Returns:
        `path`, or that of the .img file beside a .hdr file.
    """
    return f"{path[:-4]}.img" if path.lower().endswith(".hdr") else path


def _affines(path: str, image: nib.Nifti1Pair) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the affine in mm and, where the header has two, the one that is not used."""
    header = image.header
    if not header["sform_code"] and not header["qform_code"]:
        raise ValueError(
            f"{path}: expected a place in the patient (sform or qform), got a header without one, "
            "which does not tell left from right; write the file again with its affine"
        )
    unit, qform = np.ones((4, 1)), None
    try:
        unit[:3] = _MM.get(header.get_xyzt_units()[0], 1.0)
    except KeyError as error:
        raise ValueError(
            f"{path}: expected a unit that NIfTI knows, got the code {int(header['xyzt_units'])}; "
            "correct xyzt_units in the header"
        ) from error
    if header["sform_code"]:
        with suppress(HeaderDataError, ValueError):  # one that is no rotation: nobody can use it
            qform = header.get_qform(coded=True)[0]
    return unit * image.affine, None if qform is None else unit * qform


def _voxels(path: str, kind: type[nib.Nifti1Pair]) -> np.ndarray:
    try:
        if path.lower().endswith(".hdr"):
            return np.asanyarray(kind.from_filename(path).dataobj)
        with gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb") as stream:
            copy = kind.from_file_map({"image": FileHolder(fileobj=stream)})
            voxels = np.asanyarray(copy.dataobj)
            stream.read()  # nibabel stops before the end, where gzip compares the checksum
    except _UNREADABLE as error:
        raise damaged(path, error) from error
    return voxels
