"""One way to open an image of any format, and the reader for MONAI's ``LoadImaged``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from lora_ext.images.dicom import open_series, series_files
from lora_ext.images.dicom_seg import SERIES
from lora_ext.images.image_file import (
    ENDINGS,
    NIFTI,
    RESAMPLE,
    ImageFile,
    check_same_grid,
    ending,
    same_grid,
)
from lora_ext.images.itk_file import data_file, open_itk
from lora_ext.images.limits import check_header, readable_voxels
from lora_ext.images.nifti import image_file, open_nifti
from lora_ext.images.resampling import onto_grid

SEGMENTS = "segments"  # in the meta data: a label map that is still to be placed on its image


def open_image(path: str) -> ImageFile:
    """Open an image without reading its voxels.

    Args:
        path: a NIfTI, NRRD or MetaImage file, or the folder of a DICOM series.

    Returns:
        The image. Values that all are within 0.001 of whole numbers are read as these, see
        `readable_voxels`.

    Raises:
        ValueError: no such file, a file of another format or one that cannot be read, a header that
            claims what cannot be (see `check_header`), or a folder that is not exactly one whole
            series.
    """
    if os.path.isdir(path):
        image = open_series(path)
    elif not ending(path):
        raise ValueError(
            f"{path}: expected a file that ends in {', '.join(ENDINGS)} or the folder of a DICOM "
            "series, got another ending"
        )
    else:
        for part in files_of(path):
            if not os.path.isfile(part):
                raise ValueError(_missing(path, part))
        image = open_nifti(path) if ending(path) in NIFTI else open_itk(path)
    check_header(image, sum(os.path.getsize(part) for part in files_of(path)))
    return replace(image, read=lambda: readable_voxels(path, image.read()))


def _missing(path: str, part: str) -> str:
    if part == path:
        return f"{path}: found no such file"
    name = os.path.basename(part)
    return f"{path}: found no data file {name} beside it, which holds its voxels; copy it there"


def files_of(path: str) -> list[str]:
    """List the files that an image consists of, whether they exist or not.

    Args:
        path: as for `open_image`.

    Returns:
        The file itself, with the data file that its header names or that a .hdr file has; or a
        series' files.

    Raises:
        ValueError: a series' folder that is empty or holds folders, or a header that names a list
            or a pattern of data files.
    """
    if os.path.isdir(path):
        return series_files(path)
    if not os.path.isfile(path):
        return [path]
    if ending(path) in NIFTI:
        return sorted({path, image_file(path)})
    data = data_file(path)
    return [path] if data is None else [path, data]


class VolumeReader(ImageReader):
    """Read every format through `open_image`.

    MONAI chooses one reader for all files of a case, by any part of their names and by what happens
    to be installed. This one looks at each file's ending, so that the channels of a case may come
    in different formats and always in the same space, RAS.

    Args:
        resample_channels: whether files of one case that lie on other grids than the first are
            brought onto it, see `onto_grid`; otherwise they are refused.
        nan_to_num: whether voxels that are not finite are read as 0.
    """

    def __init__(self, resample_channels: bool = False, nan_to_num: bool = False) -> None:
        self.resample_channels = resample_channels
        self.nan_to_num = nan_to_num

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
        loaded = [_load(path, self.nan_to_num) for path in img]
        if len(loaded) == 1:
            return loaded[0]
        first = _grid(img[0], *loaded[0])
        arrays = [
            self._on_grid(first, _grid(path, *image), image[0])
            for path, image in zip(img, loaded, strict=True)
        ]
        arrays = [a[None] if a.ndim == 3 else np.moveaxis(a, 3, 0) for a in arrays]
        return np.concatenate(arrays), {**loaded[0][1], MetaKeys.ORIGINAL_CHANNEL_DIM: 0}

    def _on_grid(self, first: ImageFile, grid: ImageFile, array: np.ndarray) -> np.ndarray:
        if self.resample_channels and not same_grid(first, grid):
            return onto_grid(array, grid.affine, first.shape, first.affine)
        check_same_grid(first, grid, RESAMPLE)
        return array


def _load(path: str, nan_to_num: bool) -> tuple[np.ndarray, dict[str, Any]]:
    image = open_image(path)
    voxels = image.read()
    if nan_to_num and voxels.dtype.kind == "f":
        voxels = np.nan_to_num(voxels, nan=0.0, posinf=0.0, neginf=0.0)
    # In the precision of NIfTI: MONAI lays the grid of an oblique image that it resamples from
    # its corner or its centre, and the last digits of the affine decide.
    affine = image.affine.astype(np.float32).astype(np.float64)
    return voxels, {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.asarray(image.shape[:3]),
        MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if len(image.shape) == 4 else float("nan"),
        **({} if image.segments is None else {SEGMENTS: image.segments}),
        **({SERIES: path} if os.path.isdir(path) else {}),
    }


def _grid(path: str, array: np.ndarray, meta: dict[str, Any]) -> ImageFile:
    return ImageFile(path, array.shape, meta[MetaKeys.AFFINE], lambda: array)
