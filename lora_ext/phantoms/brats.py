"""A head with a brain tumour in FLAIR, T1w, t1gd and T2w, labelled as Task01_BrainTumour.

The tumour's regions are nested and irregular, as in the BraTS labels.
"""

from __future__ import annotations

import numpy as np

from lora_ext.phantoms.acquisition import SEE_THROUGH, Contrast, Scanner, acquire, paint
from lora_ext.phantoms.anatomy import (
    Anatomy,
    Size,
    case_generators,
    ellipsoid_radius,
    field_axis,
    posed_grid,
    smallest,
    smooth_noise,
)

EDEMA, NON_ENHANCING, ENHANCING = 1, 2, 3
EMPTY_EVERY = 8  # cases, of which one has no enhancing part

# Mean signal per channel: FLAIR, T1w, t1gd, T2w. FLAIR and T2w show the whole tumour but not its
# parts, t1gd its core but not the edema, T1w only that a spot is no tumour.
CONTRAST: Contrast = {
    "scalp": (520, 700, 740, 420),
    "skull": (110, 110, 110, 90),
    "csf": (120, 180, 180, 950),
    "grey": (470, 440, 450, 540),
    "white": (400, 600, 600, 430),
    "spot": (640, SEE_THROUGH, SEE_THROUGH, 690),
    "vessel": (SEE_THROUGH, SEE_THROUGH, 880, SEE_THROUGH),
    "edema": (690, 480, SEE_THROUGH, 740),
    "non-enhancing": (690, 480, 320, 740),
    "enhancing": (690, 480, 880, 740),
}
ABNORMAL = ("spot", "vessel", "edema", "non-enhancing", "enhancing")
SCANNER = Scanner(blur=0.5, noise=45)
HEAD_RADII = (0.80, 0.92, 1.25)


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


def draw_tissues(
    rng: np.random.Generator, grid: np.ndarray, head: np.ndarray
) -> dict[str, np.ndarray]:
    """Draw a healthy head.

    Args:
        rng: source of randomness.
        grid: coordinates of shape (3, X, Y, Z) in the head's frame.
        head: elliptic radius of the head, of shape (X, Y, Z).

    Returns:
        Masks of shape (X, Y, Z), to be painted in this order: scalp (the whole head), skull,
        csf (all inside the skull), grey (the brain), white.
    """
    size = grid.shape[1:]
    folds, depth = (smooth_noise(rng, size, (18, 18, 9)) for _ in range(2))
    sulci = (np.abs(folds) < 0.16) & (head > 0.66)
    brain = (head < 0.83) & ~sulci
    for side in (-1, 1):
        width, length, height = np.exp(rng.uniform(-0.2, 0.2, 3)) * (0.065, 0.27, 0.42)
        centre = (side * rng.uniform(0.09, 0.12), rng.uniform(-0.05, 0.05), 0.1)
        radius = ellipsoid_radius(grid, centre, (width, length, height), side * 14)
        brain &= radius * np.exp(0.08 * depth) > 1
    white = brain & (head + 0.07 * depth < 0.68) & (depth < 1.5)
    return {
        "scalp": head < 1.0,
        "skull": head < 0.93,
        "csf": head < 0.86,
        "grey": brain,
        "white": white,
    }


def draw_distractors(
    rng: np.random.Generator, grid: np.ndarray, brain: np.ndarray, white: np.ndarray
) -> dict[str, np.ndarray]:
    """Draw what looks like tumour in some channels and is none.

    Args:
        rng: source of randomness.
        grid: coordinates of shape (3, X, Y, Z) in the head's frame.
        brain: boolean mask of the brain without the tumour, of shape (X, Y, Z).
        white: boolean mask of the white matter without the tumour, of shape (X, Y, Z).

    Returns:
        Masks of shape (X, Y, Z): spots in the white matter, bright in FLAIR and T2w, and vessels,
        bright in t1gd.
    """
    size = brain.shape
    spots = np.zeros(size, bool)
    for _ in range(rng.integers(4, 9)):
        centre = rng.uniform(-1, 1, 3) * (0.45, 0.55, 0.7)
        radii = rng.uniform(0.04, 0.085, 3) * (1, 1, 1.7)
        spots |= ellipsoid_radius(grid, centre, radii, rng.uniform(-90, 90)) < 1
    # Two fields are both zero along curves: thin winding tubes.
    first, second = (smooth_noise(rng, size, (9, 9, 5)) for _ in range(2))
    return {"spot": spots & white, "vessel": (np.hypot(first, second) < 0.16) & brain}


def case_contrast(rng: np.random.Generator) -> Contrast:
    """Draw how strongly each channel of a case shows what is abnormal, relative to white matter.

    Args:
        rng: source of randomness.

    Returns:
        The contrast table of the case; tissues that share a mean in a channel still do.
    """
    white = np.array(CONTRAST["white"])
    strength = rng.uniform(0.75, 1.15, white.size)
    weakened = {name: white + strength * (np.array(CONTRAST[name]) - white) for name in ABNORMAL}
    return {**CONTRAST, **weakened}


def draw_brats(seed: int, case: int, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Draw one case.

    Args:
        seed: seed of the whole phantom.
        case: case number, from 1.
        size: image size in voxels.

    Returns:
        Image of shape (4, X, Y, Z), int16, and label map of shape (X, Y, Z), uint8.
    """
    rng, acquisition = case_generators(seed, case)
    grid = posed_grid(rng, size, degrees=15, shift=0.04, scale=(0.92, 1.02))
    head = ellipsoid_radius(grid, (0, 0, 0), HEAD_RADII)
    layers = draw_tissues(rng, grid, head)
    label = draw_lesion(rng, grid, head, layers["grey"], enhances(seed, case))
    healthy = label == 0
    layers |= draw_distractors(rng, grid, layers["grey"] & healthy, layers["white"] & healthy)
    layers["edema"] = label == EDEMA
    layers["non-enhancing"] = label == NON_ENHANCING
    layers["enhancing"] = label == ENHANCING
    signal = paint(layers, case_contrast(rng), len(BRATS.channels))
    image = np.stack([acquire(acquisition, s, layers["scalp"], SCANNER) for s in signal])
    return image, label


def _roundness(size: Size) -> np.ndarray:
    """Return semi-axes of product 1 that make a lesion less flat in a thin slab than the field."""
    stretch = np.clip(np.sqrt(size[0] * size[1]) / size[2], 1.0, 1.7)
    return np.array([1.0, 1.0, stretch]) / np.cbrt(stretch)


BRATS = Anatomy(
    task="brats",
    channels=("FLAIR", "T1w", "t1gd", "T2w"),
    labels=("background", "edema", "non-enhancing tumor", "enhancing tumour"),
    spacing=(1.0, 1.0, 1.0),
    draw=draw_brats,
)
