"""One way to open an image of any format, and the reader for MONAI's ``LoadImaged``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader, NibabelReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from lora_ext.images.dicom import open_series, series_files
from lora_ext.images.image_file import ENDINGS, NIFTI, ImageFile, check_same_grid, ending
from lora_ext.images.itk_file import data_file, open_itk
from lora_ext.images.nifti import open_nifti


def open_image(path: str) -> ImageFile:
    """Open an image without reading its voxels.

    Args:
        path: a NIfTI, NRRD or MetaImage file, or the folder of a DICOM series.

    Returns:
        The image.

    Raises:
        ValueError: a file of another format or one that cannot be read, or a folder that is not
            exactly one whole series.
    """
    if os.path.isdir(path):
        return open_series(path)
    if not ending(path):
        raise ValueError(
            f"{path}: expected a file that ends in {', '.join(ENDINGS)} or the folder of a DICOM "
            "series, got another ending"
        )
    return open_nifti(path) if ending(path) in NIFTI else open_itk(path)


def files_of(path: str) -> list[str]:
    """List the files that an image consists of, whether they exist or not.

    Args:
        path: as for `open_image`.

    Returns:
        The file itself, with the data file that its header names; or a series' files.

    Raises:
        ValueError: a series' folder that is empty or holds folders, or a header that names a list
            or a pattern of data files.
    """
    if os.path.isdir(path):
        return series_files(path)
    if ending(path) in NIFTI or not os.path.isfile(path):
        return [path]
    data = data_file(path)
    return [path] if data is None else [path, data]


class VolumeReader(ImageReader):
    """Read NIfTI as ``NibabelReader`` does, and every other format through `open_image`.

    MONAI chooses one reader for all files of a case, by any part of their names and by what happens
    to be installed. This one looks at each file's ending, so that the channels of a case may come
    in different formats and always in the same space, RAS.
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return True: what cannot be read ends with an error."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> tuple[str, ...]:
        """Return the paths: ``LoadImage`` would answer an error here with its other readers."""
        return tuple(os.fspath(path) for path in ensure_tuple(data))

    def get_data(self, img: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Read the files of one case.

        Args:
            img: one path with all channels, or several whose channels are put one after the other.

        Returns:
            The voxels, channels last as in the file, or first where there are several files; and
            the first file's meta data.

        Raises:
            ValueError: a file that cannot be read, or files on different grids.
        """
        loaded = [_load(path) for path in img]
        if len(loaded) == 1:
            return loaded[0]
        grids = [_grid(path, *image) for path, image in zip(img, loaded, strict=True)]
        for grid in grids:
            check_same_grid(grids[0], grid)
        arrays = [a[None] if a.ndim == 3 else np.moveaxis(a, 3, 0) for a, _ in loaded]
        return np.concatenate(arrays), {**loaded[0][1], MetaKeys.ORIGINAL_CHANNEL_DIM: 0}


def _load(path: str) -> tuple[np.ndarray, dict[str, Any]]:
    if ending(path) in NIFTI and os.path.isfile(path):
        nifti = NibabelReader()
        return nifti.get_data(nifti.read(path))
    image = open_image(path)
    # In the precision of NIfTI: MONAI lays the grid of an oblique image that it resamples from
    # its corner or its centre, and the last digits of the affine decide.
    affine = image.affine.astype(np.float32).astype(np.float64)
    return image.read(), {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.asarray(image.shape[:3]),
        MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if len(image.shape) == 4 else float("nan"),
    }


def _grid(path: str, array: np.ndarray, meta: dict[str, Any]) -> ImageFile:
    return ImageFile(path, array.shape, meta[MetaKeys.AFFINE], lambda: array)
