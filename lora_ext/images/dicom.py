"""DICOM series: a folder with the slices of one volume, each in a file of any name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import itk
import numpy as np
from monai.data import ITKReader

from lora_ext.images.image_file import ImageFile, damaged
from lora_ext.images.itk_file import itk_affine
from lora_ext.images.listing import entries, files_below, listed

_ONE_SERIES = "the slices of one DICOM series, one slice a file, and nothing else"
_DESCRIPTION = "0008|103e"
_PLANE_TOLERANCE = 1e-4  # mm per voxel
_APART = 0.01  # mm; closer slices lie in one place
_UNEVEN = 0.2  # of the distance between slices; a missing slice moves others by a third or more
_ROUNDING = 0.1  # mm; positions are written as text, by some scanners with one decimal
_SIDEWAYS = 0.1  # of a voxel


@dataclass(frozen=True)
class _Slice:
    path: str
    shape: tuple[int, int]
    affine: np.ndarray  # in RAS; the third column is a guess, as a slice knows no neighbour

    @property
    def plane(self) -> np.ndarray:
        return self.affine[:3, :2]

    @property
    def corner(self) -> np.ndarray:
        return self.affine[:3, 3]


def series_files(folder: str) -> list[str]:
    """List the files of a series' folder; hidden ones, which file browsers leave, do not count.

    Args:
        folder: the folder.

    Returns:
        Their paths, sorted by name.

    Raises:
        ValueError: no file, or a folder beside the files.
    """
    found = entries(folder)
    folders = [path.name for path in found if path.is_dir()]
    if folders or not found:
        got = f"the folders {listed(folders)} in it" if folders else "no file"
        raise ValueError(f"{folder}: expected {_ONE_SERIES}; got {got}")
    return [str(path) for path in found]


def holds_dicom(folder: str | os.PathLike[str]) -> bool:
    """Tell whether there is a DICOM image in a folder or below it.

    Args:
        folder: any folder.

    Returns:
        Whether ITK can read one of its files as DICOM.
    """
    reader = itk.GDCMImageIO.New()
    return any(reader.CanReadFile(str(path)) for path in files_below(folder))


def open_series(folder: str) -> ImageFile:
    """Open a DICOM series.

    ITK by itself takes the first of several series, spreads the slices evenly where one is missing,
    and straightens a tilted stack. Here each of these is an error.

    Args:
        folder: the folder of the series.

    Returns:
        The image (H, W, D), its slices in the order of their positions along the normal. Voxels are
        float32, each slice's rescale slope and intercept applied.

    Raises:
        ValueError: no file, a folder or a file that is no DICOM image, two series, a damaged file,
            several frames or colours in a file, a single slice, slices of different size or
            orientation or in one place, uneven gaps, or a stack that leans.
    """
    files = series_files(folder)
    _check_one_series(folder, files)
    slices = [_open_slice(path) for path in files]
    if len(slices) < 2:
        raise ValueError(f"{folder}: expected two or more slices, got one")
    for one in slices:
        _check_plane(slices[0], one)
    normal = np.cross(*slices[0].plane.T)
    normal /= np.linalg.norm(normal)
    slices.sort(key=lambda one: float(one.corner @ normal))
    step = _check_gaps(slices, normal)
    _check_upright(folder, slices, normal)
    affine = slices[0].affine.copy()
    affine[:3, 2] = step * normal
    paths = [one.path for one in slices]
    return ImageFile(
        folder, (*slices[0].shape, len(slices)), affine, lambda: _voxels(folder, paths)
    )


def _check_one_series(folder: str, files: Sequence[str]) -> None:
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(False)
    names.SetDirectory(folder)
    series = {uid: list(names.GetFileNames(uid)) for uid in names.GetSeriesUIDs()}
    known = {os.path.basename(path) for paths in series.values() for path in paths}
    others = [name for name in map(os.path.basename, files) if name not in known]
    if others:
        raise ValueError(
            f"{folder}: expected {_ONE_SERIES}; got no readable DICOM image in {listed(others)}"
        )
    if len(series) > 1:
        found = " and ".join(
            f"{uid} ({_description(paths[0])}{len(paths)} of the files)"
            for uid, paths in series.items()
        )
        raise ValueError(f"{folder}: expected one DICOM series, got {len(series)}: {found}")


def _description(path: str) -> str:
    header = _header(path)  # kept in a variable: the fields live only as long as it does
    fields = header.GetMetaDataDictionary()
    return f"{fields[_DESCRIPTION].strip()}, " if fields.HasKey(_DESCRIPTION) else ""


def _header(path: str) -> itk.GDCMImageIO:
    header = itk.GDCMImageIO.New()
    header.SetFileName(path)
    try:
        header.ReadImageInformation()
    except RuntimeError as error:
        raise damaged(path, error) from error
    return header


def _open_slice(path: str) -> _Slice:
    header = _header(path)
    width, height, frames = (header.GetDimensions(axis) for axis in range(3))
    if frames > 1 or header.GetNumberOfComponents() > 1:
        raise ValueError(
            f"{path}: expected one grey slice a file, got {frames} frames of "
            f"{header.GetNumberOfComponents()} colours"
        )
    return _Slice(path, (width, height), itk_affine(header))


def _check_plane(first: _Slice, one: _Slice) -> None:
    if one.shape != first.shape:
        raise ValueError(
            f"{one.path}: expected a slice of {first.shape} voxels as in {first.path}, "
            f"got {one.shape}"
        )
    if not np.allclose(one.plane, first.plane, rtol=0, atol=_PLANE_TOLERANCE):
        expected, got = ((np.round(of.plane.T, 4) + 0.0).tolist() for of in (first, one))
        raise ValueError(
            f"{one.path}: expected the slice axes of {first.path}, {expected} in mm, got {got}"
        )


def _check_gaps(slices: Sequence[_Slice], normal: np.ndarray) -> float:
    """Return the distance between slices in mm; an error names the two around the worst gap."""
    places = np.array([one.corner @ normal for one in slices])
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    # Each slice is compared with its place in the even stack that fits best: rounded positions make
    # gaps of 0.6 and 0.7 mm and are none the less even.
    numbers = np.arange(len(slices))
    step, first = np.polyfit(numbers, places, 1)
    uneven = np.abs(places - (first + step * numbers)).max() > max(_UNEVEN * usual, _APART)
    worst = int(np.argmin(gaps)) if gaps.min() < _APART else int(np.argmax(abs(gaps - usual)))
    before, after = slices[worst].path, slices[worst + 1].path
    if gaps[worst] < _APART:
        raise ValueError(
            f"{before}: expected one volume, each slice at a position of its own, got another "
            f"slice in the same place, {after}"
        )
    if uneven:
        raise ValueError(
            f"{before}: expected {usual:.4g} mm to the next slice, as between the others, got "
            f"{gaps[worst]:.4g} mm to {after}: a slice is missing, or they are uneven"
        )
    return float(step)


def _check_upright(folder: str, slices: Sequence[_Slice], normal: np.ndarray) -> None:
    offsets = np.array([one.corner - slices[0].corner for one in slices])
    sideways = np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1)
    voxel = np.linalg.norm(slices[0].plane, axis=0).min()
    if sideways.max() > max(_SIDEWAYS * voxel, _ROUNDING):
        raise ValueError(
            f"{folder}: expected a stack at right angles to its slices, got one that shifts "
            f"sideways by {sideways.max():.4g} mm (a tilted gantry)"
        )


def _voxels(folder: str, paths: list[str]) -> np.ndarray:
    try:
        # As float32: the type of the first slice would cut off the fractions of the others.
        return ITKReader().get_data(itk.imread(paths, itk.F))[0]
    except RuntimeError as error:
        raise damaged(folder, error) from error
