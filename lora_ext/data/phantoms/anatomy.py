"""What an anatomy tells the writer: channels, labels, spacing and how to draw a case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int, int]


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
