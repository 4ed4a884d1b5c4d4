"""The writer that the bundles give to MONAI's ``SaveImaged``."""

from __future__ import annotations

from typing import Any

from monai.config import PathLike
from monai.data import ImageWriter, ITKWriter, NibabelWriter

from lora_ext.images.image_file import NIFTI, check_output_ending


class _AsIs(ImageWriter):
    """Leave a volume of one channel as it is.

    MONAI 1.6.1 calls its resampling even for a volume that stays where it is. There it takes the
    volume, which has no channel axis any more, for a plane, and fails where the first two axes do
    not span the axial plane: on every sagittal or coronal image with channels. And it makes a plane
    of a volume with a single slice, which then has no place in the patient.
    """

    data_obj: Any

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


class ITKFileWriter(_AsIs, ITKWriter):
    """MONAI's ``ITKWriter`` without resampling, compressing."""

    def write(self, filename: PathLike, verbose: bool = False, **kwargs: Any) -> None:
        """Write the file, see ``monai.data.ITKWriter``."""
        super().write(filename, verbose=verbose, **{"compression": True, **kwargs})


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
