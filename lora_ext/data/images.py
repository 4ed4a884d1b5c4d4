"""One way to open an image of any format."""

from __future__ import annotations

import os

from lora_ext.data.dicom import open_series, series_files
from lora_ext.data.formats import ENDINGS, NIFTI, ending
from lora_ext.data.image_file import ImageFile
from lora_ext.data.itk_file import data_file, open_itk
from lora_ext.data.nifti import open_nifti


def open_image(path: str) -> ImageFile:
    """Opens an image without reading its voxels.

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
            f"{path}: found no ending of an image; allowed are {', '.join(ENDINGS)}, or the folder "
            "of a DICOM series"
        )
    return open_nifti(path) if ending(path) in NIFTI else open_itk(path)


def files_of(path: str) -> list[str]:
    """Lists the files that an image consists of, whether they exist or not.

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
