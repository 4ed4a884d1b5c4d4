"""NRRD and MetaImage files, through ITK, and the data files that their headers name."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from typing import Any

import itk
import numpy as np
from monai.data.utils import orientation_ras_lps

from lora_ext.images.image_file import NRRD, ImageFile, damaged, ending
from lora_ext.images.slicer import label_map

_REAL_NUMBERS = ("scalar", "vector", "covariant_vector", "rgb", "rgba")
_LPS = "left-posterior-superior"  # ITK has turned RAS and LAS into it
_NRRD_END = re.compile(rb"\r?\n\r?\n")
_NRRD_DATA = re.compile(
    rb"(?:^|\r)data ?file:[ \t]*([^\r\n]+?)[ \t\r]*$", re.IGNORECASE | re.MULTILINE
)
_NRRD_GZIP = re.compile(rb"^encoding: *gz", re.IGNORECASE | re.MULTILINE)
_META_DATA = re.compile(
    rb"(?:^|\r)\s*ElementDataFile[ \t]*[=:][ \t]*([^\r\n]+?)[ \t\r]*$",
    re.IGNORECASE | re.MULTILINE,
)
_NRRD_UNITS = re.compile(rb"^space units: *(.*\S)", re.IGNORECASE | re.MULTILINE)
_META_UNITS = re.compile(rb"^DistanceUnits *= *(.*\S)", re.IGNORECASE | re.MULTILINE)
_MM = re.compile(r"[\s\"?]*(?:(mm|millimet(er|re)s?)[\s\"?]*)*", re.IGNORECASE)  # ? is unknown
_META_ZLIB = re.compile(rb"^CompressedData *= *True", re.MULTILINE)
_HEADER = 1 << 16  # bytes that hold any header
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class _Layout:
    """Where a file says that its voxels are: `data` names another file, `start` is in this one."""

    data: str | None
    start: int
    compressed: bool
    units: str


def open_itk(path: str) -> ImageFile:
    """Open an NRRD or MetaImage file; its data file, if it has one, was looked at by `data_file`.

    Channels are the components of each voxel (an NRRD axis of kind ``list`` or ``vector``,
    MetaImage's ``ElementNumberOfChannels``), or the last of four axes. A segmentation of 3D Slicer
    (``.seg.nrrd``) is opened as a label map, see `label_map`.

    Args:
        path: a .nrrd, .nhdr, .mha or .mhd file.

    Returns:
        The image; its voxels are read as float32.

    Raises:
        ValueError: a file that ITK cannot read, lengths in another unit than mm, voxels that are no
            real numbers, or an NRRD whose axes or patient space are uncertain.
    """
    units = _layout(path).units
    if not _MM.fullmatch(units):
        raise ValueError(f"{path}: expected lengths in mm, got {units}; convert the header to mm")
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
    image = ImageFile(path, shape, itk_affine(header), lambda: _voxels(path, components))
    fields = header.GetMetaDataDictionary()
    if ending(path) not in NRRD or not fields.HasKey("Segment0_ID"):
        return image
    own = [key for key in fields.GetKeys() if key.startswith("Segment")]
    return label_map(image, {key: str(fields[key]) for key in own})


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
        ValueError: the header names a list or a pattern of files, or a file that does not lie
            beside it: a header from elsewhere could name any file of this machine.
    """
    name = _layout(path).data
    if name is None:
        return None
    if name.startswith("LIST") or "%" in name or not name.isprintable():
        raise ValueError(f"{path}: expected the name of one data file, got the entry {name!r}")
    folder = os.path.dirname(path)
    data = os.path.join(folder, os.path.normpath(name))
    places = (os.path.realpath(folder), os.path.dirname(os.path.realpath(path)))
    if os.path.dirname(data) != folder or os.path.dirname(os.path.realpath(data)) not in places:
        raise ValueError(
            f"{path}: expected a data file in the header's own folder, got the entry {name!r}; "
            "move it there and change the entry"
        )
    return data


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
        voxels = itk.array_from_image(itk.imread(path, kind))  # the header's order of axes reversed
    except RuntimeError as error:
        raise damaged(path, error) from error
    return voxels.T if components == 1 else np.moveaxis(voxels.T, 0, -1)


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
        if end is None and len(header) == _HEADER:
            raise damaged(path, ValueError("its header has no end"))
        header = header[: end.start() + 1] if end else header
        match, start = _NRRD_DATA.search(header), end.end() if end else 0
        compressed, units = _NRRD_GZIP.search(header) is not None, _NRRD_UNITS.search(header)
    else:
        match = _META_DATA.search(header)
        if match is None:
            raise damaged(path, ValueError("its header has no ElementDataFile"))
        start = header.find(b"\n", match.start(1)) + 1
        compressed = _META_ZLIB.search(header[:start]) is not None
        units = _META_UNITS.search(header[:start])
    name = os.fsdecode(match[1]) if match else "LOCAL"
    return _Layout(
        None if name.upper() == "LOCAL" else name,
        start,
        compressed,
        units[1].decode(errors="replace") if units else "",
    )
