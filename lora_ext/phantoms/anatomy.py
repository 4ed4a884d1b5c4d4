"""What makes an anatomy: its description, posed coordinates, ellipsoids and smooth noise.

Geometry is in units of half the field of view: a coordinate of -1 or +1 is the border of the image,
on every axis and at every image size, so an anatomy scales with the image. Noise is drawn on a
fixed number of knots for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.spatial.transform import Rotation

Size = tuple[int, int, int]  # voxels along X, Y, Z


@dataclass(frozen=True)
class Anatomy:
    """One kind of phantom.

    Attributes:
        task: name on the command line and stem of the file names.
        channels: channel names, in the order of the last axis on disk.
        labels: label names; the position is the label value, 0 is background.
        spacing: voxel size in mm.
        draw: draws case number `case` (from 1) of a seed at a size in voxels; returns the image,
            int16 of shape (C, X, Y, Z), and the label map, uint8 of shape (X, Y, Z). Array axes
            point to the patient's left, posterior and superior (LPS, as in BraTS files).
    """

    task: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    spacing: tuple[float, float, float]
    draw: Callable[[int, int, Size], tuple[np.ndarray, np.ndarray]]


def case_generators(seed: int, case: int) -> tuple[np.random.Generator, np.random.Generator]:
    """Make the random generators of one case.

    Shape draws no voxel-wise numbers and so is the same at every image size; it must not share a
    generator with the noise, which does.

    Args:
        seed: seed of the whole phantom.
        case: case number, from 1.

    Returns:
        Two independent generators: one for the shape, one for the acquisition.
    """
    shape, acquisition = np.random.SeedSequence([seed, case]).spawn(2)
    return np.random.default_rng(shape), np.random.default_rng(acquisition)


def field_axis(count: int) -> np.ndarray:
    """Return the voxel centres along one axis, shape (count,), within (-1, 1)."""
    return (2 * np.arange(count) + 1) / count - 1


def posed_grid(
    rng: np.random.Generator,
    size: Size,
    *,
    degrees: float,
    shift: float,
    scale: tuple[float, float],
) -> np.ndarray:
    """Draw a random pose and return each voxel's coordinates in the anatomy's own frame.

    Args:
        rng: source of randomness.
        size: image size in voxels.
        degrees: largest rotation about each axis.
        shift: largest shift along each axis, in half fields of view.
        scale: smallest and largest size of the anatomy.

    Returns:
        Coordinates of shape (3, X, Y, Z), float32.
    """
    rotation = Rotation.from_euler("xyz", rng.uniform(-degrees, degrees, 3), degrees=True)
    offset = rng.uniform(-shift, shift, 3)
    matrix = rotation.as_matrix().T / rng.uniform(*scale)
    axes = [field_axis(n) - o for n, o in zip(size, offset, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.stack([row[0] * x + row[1] * y + row[2] * z for row in matrix]).astype(np.float32)


def ellipsoid_radius(
    grid: np.ndarray,
    centre: Sequence[float] | np.ndarray,
    radii: Sequence[float] | np.ndarray,
    tilt: float = 0.0,
) -> np.ndarray:
    """Return the elliptic radius: 0 in the centre, 1 on the surface, above 1 outside.

    Args:
        grid: coordinates of shape (3, X, Y, Z).
        centre: centre of the ellipsoid, in the grid's frame.
        radii: semi-axes, in the grid's units; `inf` makes a tube along that axis.
        tilt: rotation of the ellipsoid about the third axis, in degrees.

    Returns:
        Radius of shape (X, Y, Z).
    """
    x, y, z = (grid[a] - np.float32(centre[a]) for a in range(3))
    cos, sin = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    along, across = cos * x + sin * y, cos * y - sin * x
    parts = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 + (z / radii[2]) ** 2
    return np.sqrt(parts).astype(np.float32)


def smooth_noise(rng: np.random.Generator, size: Size, knots: Size) -> np.ndarray:
    """Draw smooth noise: normal values on a coarse grid, joined by cubic splines.

    Args:
        rng: source of randomness.
        size: image size in voxels.
        knots: values per axis, at least 4 each; more knots make finer noise.

    Returns:
        Noise of shape (X, Y, Z), float32, mean 0 and standard deviation 1.
    """
    noise = rng.standard_normal(knots)
    for axis, (count, knot_count) in enumerate(zip(size, knots, strict=True)):
        # One knot interval of margin on each side: splines swing at their ends.
        places = np.linspace(-1, 1, knot_count) * (1 + 2 / (knot_count - 1))
        noise = make_interp_spline(places, noise, k=3, axis=axis)(field_axis(count))
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def smallest(field: np.ndarray, region: np.ndarray, voxels: float) -> np.ndarray:
    """Return the voxels of a region where a field is smallest.

    Args:
        field: values of shape (X, Y, Z).
        region: boolean mask of shape (X, Y, Z).
        voxels: how many voxels to take; rounded, at least 1, at most the region.

    Returns:
        Boolean mask of shape (X, Y, Z) inside `region`.
    """
    values = field[region]
    count = int(np.clip(round(voxels), 1, values.size))
    return region & (field <= np.partition(values, count - 1)[count - 1])
