"""The image formats that are read and written, told apart by the endings of file names."""

from __future__ import annotations

import os

NIFTI = (".nii.gz", ".nii")
NRRD = (".nrrd", ".nhdr")
META_IMAGE = (".mha", ".mhd")
ENDINGS = (*NIFTI, *NRRD, *META_IMAGE)
OUTPUT_ENDINGS = (".nii.gz", ".nrrd", ".mha")  # one file each, compressed


def ending(path: str | os.PathLike[str]) -> str:
    """Finds the ending that tells an image's format.

    Args:
        path: path of a file.

    Returns:
        One of `ENDINGS`, in lower case; empty for any other file.
    """
    name = os.path.basename(path).lower()
    return next((known for known in ENDINGS if name.endswith(known)), "")


def case_name(path: str | os.PathLike[str]) -> str:
    """Names a case after its file: the file name without the ending of an image.

    Args:
        path: path of an image, or of a DICOM series' folder.

    Returns:
        The case name.
    """
    name = os.path.basename(path)
    return name[: len(name) - len(ending(name))]


def check_output_ending(output_ext: str) -> str:
    """Checks the format that segmentations are to be written in.

    Args:
        output_ext: a file ending.

    Returns:
        `output_ext`, unchanged.

    Raises:
        ValueError: it is none of `OUTPUT_ENDINGS`.
    """
    if output_ext not in OUTPUT_ENDINGS:
        raise ValueError(
            f"output_ext: found {output_ext!r}; allowed are {', '.join(OUTPUT_ENDINGS)}"
        )
    return output_ext
