"""NRRD and MetaImage files, through ITK, and the data files that their headers name."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from typing import Any

import itk
import numpy as np
from monai.data import ITKReader
from monai.data.utils import orientation_ras_lps

from lora_ext.images.image_file import NRRD, ImageFile, damaged, ending

_REAL_NUMBERS = ("scalar", "vector", "covariant_vector", "rgb", "rgba")
_LPS = "left-posterior-superior"  # ITK has turned RAS and LAS into it
_NRRD_END = re.compile(rb"\r?\n\r?\n")
_NRRD_DATA = re.compile(rb"^data ?file: *(.+?)[ \t\r]*$", re.IGNORECASE | re.MULTILINE)
_NRRD_GZIP = re.compile(rb"^encoding: *gz", re.IGNORECASE | re.MULTILINE)
_META_DATA = re.compile(rb"^ElementDataFile *= *(.+?)[ \t\r]*$", re.MULTILINE)
_META_ZLIB = re.compile(rb"^CompressedData *= *True", re.MULTILINE)
_HEADER = 1 << 16  # bytes that hold any header
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class _Layout:
    """Where a file says that its voxels are: `data` names another file, `start` is in this one."""

    data: str | None
    start: int
    compressed: bool


def open_itk(path: str) -> ImageFile:
    """Open an NRRD or MetaImage file.

    Channels are the components of each voxel (an NRRD axis of kind ``list`` or ``vector``,
    MetaImage's ``ElementNumberOfChannels``), or the last of four axes.

    Args:
        path: a .nrrd, .nhdr, .mha or .mhd file.

    Returns:
        The image; its voxels are read as float32.

    Raises:
        ValueError: a file that ITK cannot read, voxels that are no real numbers, or an NRRD whose
            axes or patient space are uncertain.
    """
    try:
        header = itk.ImageIOFactory.CreateImageIO(path, itk.CommonEnums.IOFileMode_ReadMode)
        if header is None:
            raise RuntimeError("no header of this format")
        header.SetFileName(path)
        header.ReadImageInformation()
    except RuntimeError as error:
        raise damaged(path, error) from error
    kind = header.GetPixelTypeAsString(header.GetPixelType())
    if kind not in _REAL_NUMBERS:
        raise ValueError(f"{path}: expected voxels of real numbers, got {kind}")
    if ending(path) in NRRD:
        _check_nrrd(path, header)
    axes, components = header.GetNumberOfDimensions(), header.GetNumberOfComponents()
    shape = tuple(header.GetDimensions(axis) for axis in range(axes))
    shape += (components,) if components > 1 else ()
    return ImageFile(path, shape, itk_affine(header), lambda: _voxels(path, components))


def itk_affine(header: Any) -> np.ndarray:
    """Compute an affine from ITK's geometry, which is in LPS.

    Args:
        header: an ``itk.ImageIOBase`` that has read its file's information.

    Returns:
        From voxel indices to mm, (4, 4), in RAS.
    """
    affine = np.eye(4)
    for axis in range(min(3, header.GetNumberOfDimensions())):
        direction = np.asarray(header.GetDirection(axis))[:3]
        affine[: len(direction), axis] = direction * header.GetSpacing(axis)
        affine[axis, 3] = header.GetOrigin(axis)
    return orientation_ras_lps(affine)


def data_file(path: str) -> str | None:
    """Return the path of the file that holds the voxels of an NRRD or MetaImage header.

    Args:
        path: a .nrrd, .nhdr, .mha or .mhd file.

    Returns:
        The path of the other file; None if the voxels follow the header in the same file, or there
        is no such header.

    Raises:
        ValueError: the header names a list or a pattern of files.
    """
    name = _layout(path).data
    if name is not None and (name.startswith("LIST") or "%" in name):
        raise ValueError(f"{path}: expected the name of one data file, got the entry {name!r}")
    return None if name is None else os.path.join(os.path.dirname(path), name)


def _check_nrrd(path: str, header: Any) -> None:
    fields = header.GetMetaDataDictionary()
    space = fields["NRRD_space"] if fields.HasKey("NRRD_space") else _LPS
    if space != _LPS:  # ITK would take any other space for LPS
        raise ValueError(
            f"{path}: expected the space right-anterior-superior, left-anterior-superior or "
            f"{_LPS}, got {space}"
        )
    if header.GetNumberOfDimensions() == 4 and not fields.HasKey("NRRD_kinds[3]"):
        raise ValueError(
            f"{path}: expected kinds such as 'domain domain domain list', got four axes without "
            "kinds, so that the channels' axis is uncertain"
        )


def _voxels(path: str, components: int) -> np.ndarray:
    _check_stream(path)
    # With its own choice of type, ITK's Python package refuses most images with channels.
    kind = itk.F if components == 1 else itk.VariableLengthVector[itk.F]
    try:
        return ITKReader().get_data(itk.imread(path, kind))[0]
    except RuntimeError as error:
        raise damaged(path, error) from error


def _check_stream(path: str) -> None:
    """Decompress the voxels: ITK compares no checksum, and may go on where that fails."""
    layout, other, stream = _layout(path), data_file(path), zlib.decompressobj(wbits=47)
    if not layout.compressed:
        return
    try:
        with open(other or path, "rb") as file:
            file.seek(0 if other else layout.start)
            while not stream.eof and (block := stream.unconsumed_tail or file.read(_CHUNK)):
                stream.decompress(block, _CHUNK)
        if not stream.eof:
            raise EOFError("the compressed voxels end too early")
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error


def _layout(path: str) -> _Layout:
    with open(path, "rb") as file:
        header = file.read(_HEADER)
    if ending(path) in NRRD:
        end = _NRRD_END.search(header)
        header = header[: end.start() + 1] if end else header
        match, start = _NRRD_DATA.search(header), end.end() if end else 0
        compressed = _NRRD_GZIP.search(header) is not None
    else:
        match = _META_DATA.search(header)
        start = header.find(b"\n", match.start()) + 1 if match else 0
        compressed = _META_ZLIB.search(header[:start]) is not None
    name = os.fsdecode(match[1]) if match else "LOCAL"
    return _Layout(None if name == "LOCAL" else name, start, compressed)
