"""A male pelvis in T2 and ADC with the prostate's zones, labelled as Task05_Prostate."""

from __future__ import annotations

import numpy as np

from lora_ext.phantoms.acquisition import SEE_THROUGH, Contrast, Scanner, acquire, paint
from lora_ext.phantoms.anatomy import (
    Anatomy,
    Size,
    case_generators,
    ellipsoid_radius,
    posed_grid,
    smooth_noise,
)

PERIPHERAL, TRANSITION = 1, 2

# Mean signal per channel: T2, ADC. T2 shows the peripheral zone but not where the transition zone
# ends, ADC the gland but not its zones.
CONTRAST: Contrast = {
    "fat": (820, 160),
    "muscle": (220, 400),
    "stroma": (450, 480),
    "bladder": (900, 980),
    "rectal wall": (330, 520),
    "rectum": (110, 110),
    "vein": (760, SEE_THROUGH),
    "transition": (450, 760),
    "peripheral": (760, 760),
}
SCANNERS = (Scanner(blur=0.5, noise=45), Scanner(blur=0.9, noise=60))
TEXTURE = {"transition": 75, "stroma": 45}


def draw_gland(
    rng: np.random.Generator, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the prostate: the transition zone in front, the peripheral zone a crescent behind it.

    The gland is 36-54 mm wide when the field is 77 mm, the default.

    Args:
        rng: source of randomness.
        grid: coordinates of shape (3, X, Y, Z) in the pelvis' frame.

    Returns:
        Label map of shape (X, Y, Z), uint8, and centre and semi-axes of the gland, each of shape
        (3,), in half fields of view.
    """
    size = grid.shape[1:]
    width = rng.uniform(0.47, 0.70)
    radii = width * np.array([1.0, rng.uniform(0.64, 0.74), rng.uniform(0.78, 0.94)])
    centre = np.array([0.0, -0.12, -0.12])
    surface, border = (smooth_noise(rng, size, (6, 6, 6)) for _ in range(2))
    gland = ellipsoid_radius(grid, centre, radii) * np.exp(0.04 * surface) < 1
    share = np.array([0.76, 0.74, 0.82]) * rng.uniform(0.88, 1.12)
    # The front of the transition zone is the front of the gland, whatever its size.
    place = centre + radii * (0, share[1] - 1.04, 0.06)
    inner = radii * share
    inside = ellipsoid_radius(grid, place, inner) * np.exp(0.07 * border) < 1
    label = np.where(gland, np.uint8(PERIPHERAL), np.uint8(0))
    label[gland & inside] = TRANSITION
    return label, centre, radii


def draw_pelvis(
    rng: np.random.Generator, grid: np.ndarray, centre: np.ndarray, radii: np.ndarray
) -> dict[str, np.ndarray]:
    """Draw what surrounds the gland.

    Args:
        rng: source of randomness.
        grid: coordinates of shape (3, X, Y, Z) in the pelvis' frame.
        centre: centre of the gland.
        radii: semi-axes of the gland.

    Returns:
        Masks of shape (X, Y, Z), to be painted in this order: fat (the whole body), muscle, stroma,
        bladder, rectal wall, rectum, vein.
    """
    size = grid.shape[1:]
    uneven = smooth_noise(rng, size, (8, 8, 6))
    first, second = (smooth_noise(rng, size, (12, 12, 9)) for _ in range(2))
    tube = ellipsoid_radius(grid, (0, 0, 0), (1.02, 0.97, np.inf))
    rough = tube * np.exp(0.025 * uneven)
    top, back = centre[2] + radii[2], centre[1] + radii[1]
    bladder_radii = rng.uniform(0.36, 0.48) * np.array([1.15, 0.9, 1.0])
    bladder = ellipsoid_radius(grid, (0, centre[1], top + 0.8 * bladder_radii[2]), bladder_radii)
    bore = rng.uniform(0.14, 0.2)
    # The rectum bends backwards above and below the gland.
    bend = np.stack([grid[0], grid[1] - 0.06 * grid[2] ** 2, grid[2]])
    rectum = ellipsoid_radius(bend, (0, back + 0.07 + bore, 0), (1.25 * bore, bore, np.inf))
    rectum *= np.exp(0.08 * uneven)
    near = ellipsoid_radius(grid, centre, radii) < 1.4
    return {
        "fat": tube < 1,
        "muscle": rough < 0.9,
        "stroma": rough < 0.8,
        "bladder": bladder * np.exp(0.05 * uneven) < 1,
        "rectal wall": rectum < 1.3,
        "rectum": rectum < 1,
        "vein": near & (rectum > 1.3) & (np.hypot(first, second) < 0.3),
    }


def add_texture(
    rng: np.random.Generator, signal: np.ndarray, region: np.ndarray, strength: float
) -> None:
    """Add nodules, brighter and darker, that leave the mean of a region as it is.

    Args:
        rng: source of randomness.
        signal: noise-free signal of one channel, of shape (X, Y, Z); changed in place.
        region: boolean mask of shape (X, Y, Z).
        strength: largest change of the signal.
    """
    nodules = np.tanh(2 * smooth_noise(rng, signal.shape, (18, 18, 12)))
    signal[region] += strength * (nodules[region] - nodules[region].mean())


def draw_prostatex(seed: int, case: int, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Draw one case.

    Args:
        seed: seed of the whole phantom.
        case: case number, from 1.
        size: image size in voxels.

    Returns:
        Image of shape (2, X, Y, Z), int16, and label map of shape (X, Y, Z), uint8.
    """
    rng, acquisition = case_generators(seed, case)
    grid = posed_grid(rng, size, degrees=10, shift=0.05, scale=(0.98, 1.02))
    label, centre, radii = draw_gland(rng, grid)
    layers = draw_pelvis(rng, grid, centre, radii)
    layers["transition"] = label == TRANSITION
    layers["peripheral"] = label == PERIPHERAL
    signal = paint(layers, CONTRAST, len(PROSTATEX.channels))
    for tissue, strength in TEXTURE.items():
        visible = signal[0] == CONTRAST[tissue][0]
        add_texture(rng, signal[0], layers[tissue] & visible, strength)
    image = [
        acquire(acquisition, channel, layers["fat"], scanner)
        for channel, scanner in zip(signal, SCANNERS, strict=True)
    ]
    return np.stack(image), label


PROSTATEX = Anatomy(
    task="prostatex",
    channels=("T2", "ADC"),
    labels=("background", "PZ", "TZ"),
    spacing=(0.6, 0.6, 1.5),
    draw=draw_prostatex,
)
