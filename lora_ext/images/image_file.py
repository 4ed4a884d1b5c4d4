"""An image on disk, whatever its format: header read, voxels not yet.

Formats are told apart by the endings of file names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

NIFTI = (".nii.gz", ".nii", ".hdr")
NRRD = (".nrrd", ".nhdr")
META_IMAGE = (".mha", ".mhd")
ENDINGS = (*NIFTI, *NRRD, *META_IMAGE)
OUTPUT_ENDINGS = (".nii.gz", ".nrrd", ".mha", ".seg.nrrd", ".dcm")  # one file each

# ITK's source file, line and address
_ITK_PREFIX = re.compile(r"^.*?ITK(::| )ERROR: \w+\(0x[0-9a-f]+\): ", re.IGNORECASE)
RESAMPLE = (
    "or, if the patient lay still between them, pass --resample_channels True, which brings them "
    "onto the first one's grid"
)
_GRID_TOLERANCE = 0.1  # of a voxel; formats and programs round the same numbers in their own ways


@dataclass(frozen=True)
class ImageFile:
    """One file, or one DICOM series.

    Attributes:
        path: the file, or the folder of the series.
        shape: (H, W, D), or (H, W, D, C) with the channels last.
        affine: from voxel indices to mm, (4, 4), in RAS as nibabel has it.
        read: reads the voxels, of `shape`; raises ValueError if the file is damaged.
        qform: a NIfTI's second affine, which is not used, where the header has both.
        segments: name of each label value of a segmentation from 3D Slicer, which is cropped to
            what it shows and has its place on an image's grid by its geometry; None for any other.
    """

    path: str
    shape: tuple[int, ...]
    affine: np.ndarray
    read: Callable[[], np.ndarray]
    qform: np.ndarray | None = None
    segments: dict[int, str] | None = None

    @property
    def num_channels(self) -> int:
        """The number of channels, 1 without a channel axis."""
        return self.shape[3] if len(self.shape) == 4 else 1


def ending(path: str | os.PathLike[str]) -> str:
    """Return the ending that tells an image's format.

    Args:
        path: path of a file.

    Returns:
        One of `ENDINGS`, in lower case; empty for any other file.
    """
    name = os.path.basename(path).lower()
    return next((known for known in ENDINGS if name.endswith(known)), "")


def case_name(path: str | os.PathLike[str]) -> str:
    """Name a case after its file: the file name without the ending of an image.

    Args:
        path: path of an image, or of a DICOM series' folder.

    Returns:
        The case name.
    """
    name = os.path.basename(path)
    return name[: len(name) - len(ending(name))]


def check_output_ending(output_ext: str) -> str:
    """Check the format that segmentations are to be written in.

    Args:
        output_ext: a file ending.

    Returns:
        `output_ext`, unchanged.

    Raises:
        ValueError: it is none of `OUTPUT_ENDINGS`.
    """
    if output_ext not in OUTPUT_ENDINGS:
        raise ValueError(
            f"output_ext: expected one of {', '.join(OUTPUT_ENDINGS)}, got {output_ext!r}"
        )
    return output_ext


def check_same_grid(reference: ImageFile, image: ImageFile, otherwise: str = "") -> None:
    """Check that two images have the same voxels: nothing is resampled silently.

    Args:
        reference: the image that gives the grid.
        image: the one to compare with it.
        otherwise: what else may be done where they have not, for the error.

    Raises:
        ValueError: another shape, or a corner voxel that is more than a tenth of a voxel away.
    """
    if image.shape[:3] != reference.shape[:3]:
        raise ValueError(
            f"{image.path}: expected the shape of {reference.path}, {_size(reference)}, "
            f"got {_size(image)}{otherwise and '; resample one first, ' + otherwise}"
        )
    voxels, mm = displacement(reference, image.affine)
    if not same_grid(reference, image):
        raise ValueError(
            f"{image.path}: expected the affine of {reference.path}, got one that puts a corner "
            f"{voxels:.4g} voxels ({mm:.4g} mm) elsewhere; up to {_GRID_TOLERANCE:g} voxels are "
            f"allowed, so resample one onto the other first{otherwise and ', ' + otherwise}"
        )


def same_grid(reference: ImageFile, image: ImageFile) -> bool:
    """Whether two images have the same voxels, as `check_same_grid` has it."""
    if image.shape[:3] != reference.shape[:3]:
        return False
    return displacement(reference, image.affine)[0] <= _GRID_TOLERANCE


def two_places(image: ImageFile) -> str:
    """Say that a NIfTI's header has two affines that differ, if it has.

    Args:
        image: the image.

    Returns:
        A sentence; empty where there is nothing to say.
    """
    if image.qform is None:
        return ""
    voxels, mm = displacement(image, image.qform)
    if voxels <= _GRID_TOLERANCE:
        return ""
    return (
        f"{image.path}: sform and qform differ by up to {mm:.4g} mm; the sform is used, and a "
        "viewer that takes the qform shows the image elsewhere"
    )


def displacement(reference: ImageFile, affine: np.ndarray) -> tuple[float, float]:
    """Measure how far another affine moves the corner voxels of an image.

    Args:
        reference: the image; its affine has an inverse.
        affine: the other affine, (4, 4).

    Returns:
        The largest distance along an axis in voxels of `reference`, and the largest distance in mm.
    """
    corners = np.array(list(product(*((0, size - 1) for size in reference.shape[:3]))))
    moved = corners @ (affine - reference.affine)[:3, :3].T + (affine - reference.affine)[:3, 3]
    voxels = moved @ np.linalg.inv(reference.affine[:3, :3]).T
    return float(np.abs(voxels).max()), float(np.linalg.norm(moved, axis=1).max())


def damaged(path: str, error: BaseException) -> ValueError:
    """Make the error for a file that cannot be read.

    Args:
        path: the file.
        error: what the library said.

    Returns:
        The error to raise.
    """
    reason = _ITK_PREFIX.sub("", " ".join(str(error).split())).partition(" Reason: ")[0]
    return ValueError(f"{path}: expected a whole file, got a damaged or truncated one ({reason})")


def _size(image: ImageFile) -> str:
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    return f"{image.shape[:3]} at {'x'.join(f'{length:.4g}' for length in spacing)} mm"
