"""A brain tumour of nested, irregular regions, as in the BraTS labels."""

from __future__ import annotations

import numpy as np

from lora_ext.data.phantoms.anatomy import Size
from lora_ext.data.phantoms.shapes import ellipsoid_radius, field_axis, smallest, smooth_noise

EDEMA, NON_ENHANCING, ENHANCING = 1, 2, 3
EMPTY_EVERY = 8


def enhances(seed: int, case: int) -> bool:
    """Tell whether a case has an enhancing part: all but one in each run of eight cases have.

    Args:
        seed: seed of the whole phantom.
        case: case number, from 1.

    Returns:
        False for exactly one case of 1-8, one of 9-16 and so on.
    """
    run, place = divmod(case - 1, EMPTY_EVERY)
    return bool(np.random.default_rng([seed, run]).integers(EMPTY_EVERY) != place)


def _roundness(size: Size) -> np.ndarray:
    """Return semi-axes of product 1 that make a lesion less flat in a thin slab than the field."""
    stretch = np.clip(np.sqrt(size[0] * size[1]) / size[2], 1.0, 1.7)
    return np.array([1.0, 1.0, stretch]) / np.cbrt(stretch)


def draw_lesion(
    rng: np.random.Generator,
    grid: np.ndarray,
    head: np.ndarray,
    brain: np.ndarray,
    enhancing: bool,
) -> np.ndarray:
    """Draw a tumour: 2-8 % of the brain, 30-50 % of it core, 40-60 % of the core enhancing.

    Each region is the part of the one around it where an elliptic radius, made irregular by smooth
    noise, is smallest; so the regions are nested and their volumes are what was drawn.

    Args:
        rng: source of randomness.
        grid: coordinates of shape (3, X, Y, Z) in the head's frame.
        head: elliptic radius of the head, of shape (X, Y, Z).
        brain: boolean mask of the brain, which the tumour does not leave, of shape (X, Y, Z).
        enhancing: whether the core has an enhancing shell.

    Returns:
        Label map of shape (X, Y, Z), uint8, with Task01_BrainTumour's labels.
    """
    size = brain.shape
    side = rng.choice([-1.0, 1.0])
    centre = np.array([side * rng.uniform(0.26, 0.4), *rng.uniform(-0.38, 0.38, 2) * (1, 0.6)])
    radii = _roundness(size) * np.exp(rng.uniform(-0.15, 0.15, 3))
    tilt = rng.uniform(-90, 90)
    shares = rng.uniform((0.02, 0.3, 0.4), (0.08, 0.5, 0.6))
    drift = rng.uniform(-0.04, 0.04, 3)
    bumps = [smooth_noise(rng, size, (12, 12, 8)) for _ in range(3)]

    # A tumour is never cut by the top or bottom of the field, as the brain itself is.
    reach = brain & (np.abs(field_axis(size[2])) < 0.92)
    # It grows along the skull rather than against it.
    wall = 1 + 8 * np.maximum(head - 0.62, 0)
    radius = ellipsoid_radius(grid, centre, radii, tilt) * wall * np.exp(0.24 * bumps[0])
    whole = smallest(radius, reach, shares[0] * brain.sum())
    radius = ellipsoid_radius(grid, centre + drift, radii, tilt) * wall * np.exp(0.24 * bumps[1])
    core = smallest(radius, whole, shares[1] * whole.sum())
    necrosis = smallest(radius * np.exp(0.1 * bumps[2]), core, (1 - shares[2]) * core.sum())

    label = np.where(whole, np.uint8(EDEMA), np.uint8(0))
    label[core] = ENHANCING if enhancing else NON_ENHANCING
    label[necrosis] = NON_ENHANCING
    return label
