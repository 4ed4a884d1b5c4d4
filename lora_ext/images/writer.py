"""The writer that the bundles give to MONAI's ``SaveImaged``."""

from __future__ import annotations

import errno
from typing import Any

import itk
import numpy as np
from monai.config import PathLike
from monai.data import ImageWriter, ITKWriter, NibabelWriter
from monai.utils import convert_to_numpy

from lora_ext.files import whole_file
from lora_ext.images.image_file import NIFTI, check_output_ending


class _AsIs(ImageWriter):
    """Leave a volume of one channel as it is.

    MONAI 1.6.1 calls its resampling even for a volume that stays where it is. There it takes the
    volume, which has no channel axis any more, for a plane, and fails where the first two axes do
    not span the axial plane: on every sagittal or coronal image with channels. And it makes a plane
    of a volume with a single slice, which then has no place in the patient.
    """

    data_obj: Any

    def write(self, filename: PathLike, verbose: bool = False, **kwargs: Any) -> None:
        """Write the file, whole or not at all.

        Raises:
            ValueError: if the disk is full, or the file cannot be read back.
        """
        with whole_file(filename) as draft:
            super().write(draft, verbose=verbose, **kwargs)

    def set_data_array(
        self,
        data_array: Any,
        channel_dim: int | None = 0,
        squeeze_end_dims: bool = True,
        **kwargs: Any,
    ) -> None:
        """Take the voxels, (1, H, W, D)."""
        options = {"channel_dim": channel_dim, "squeeze_end_dims": squeeze_end_dims, **kwargs}
        super().set_data_array(data_array, **options)
        self.data_obj = self.data_obj.reshape(data_array.shape[1:])

    @classmethod
    def resample_if_needed(
        cls, data_array: Any, affine: Any = None, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Return voxels and affine as they are."""
        return data_array, affine


class NiftiWriter(_AsIs, NibabelWriter):
    """MONAI's ``NibabelWriter`` without resampling."""


class ProbabilityWriter(NiftiWriter):
    """Write maps (R, H, W, D) as one 4D NIfTI file, (H, W, D, R), without resampling."""

    def set_data_array(
        self,
        data_array: Any,
        channel_dim: int | None = 0,
        squeeze_end_dims: bool = True,
        **kwargs: Any,
    ) -> None:
        """Take the voxels, (R, H, W, D)."""
        self.data_obj = np.moveaxis(convert_to_numpy(data_array), 0, -1)


class _ReadBack(ITKWriter):
    """Compress, and read back what was written: ITK keeps quiet about a full disk."""

    def write(self, filename: PathLike, verbose: bool = False, **kwargs: Any) -> None:
        super().write(filename, verbose=verbose, **{"compression": True, **kwargs})
        try:
            found = itk.array_from_image(itk.imread(str(filename)))
        except RuntimeError as error:
            raise OSError(errno.EIO, "a truncated file") from error
        if not np.array_equal(found, itk.array_view_from_image(self.data_obj)):
            raise OSError(errno.EIO, "other voxels than were to be written")


class ITKFileWriter(_AsIs, _ReadBack):
    """MONAI's ``ITKWriter`` without resampling, compressing."""


def segmentation_writer(output_ext: str) -> type[ImageWriter]:
    """Choose the writer for a format.

    Args:
        output_ext: .nii.gz, .nrrd or .mha.

    Returns:
        A class for ``SaveImaged``'s ``writer``, for images that are not to be resampled.

    Raises:
        ValueError: another format.
    """
    return NiftiWriter if check_output_ending(output_ext) in NIFTI else ITKFileWriter
