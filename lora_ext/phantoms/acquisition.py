"""From tissues to a magnetic resonance image: contrast, partial volume, bias field and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from lora_ext.phantoms.anatomy import smooth_noise

SEE_THROUGH = float("nan")  # a tissue that a channel does not show: what lies beneath stays
Contrast = Mapping[str, Sequence[float]]  # mean signal by tissue, one value per channel


@dataclass(frozen=True)
class Scanner:
    """Image quality of one channel.

    Attributes:
        blur: standard deviation of the partial-volume blur, in voxels.
        noise: standard deviation of the noise, in units of the contrast table.
        bias: standard deviation of the logarithm of the bias field.
        gain: largest change of the overall brightness, as a fraction.
    """

    blur: float
    noise: float
    bias: float = 0.1
    gain: float = 0.15


def paint(layers: Mapping[str, np.ndarray], contrast: Contrast, channels: int) -> np.ndarray:
    """Paint tissues over one another, the later ones on top.

    Args:
        layers: boolean mask of shape (X, Y, Z) per tissue, from the bottom to the top.
        contrast: mean signal per tissue, one value per channel; `SEE_THROUGH` paints nothing.
        channels: number of channels.

    Returns:
        Noise-free signal of shape (C, X, Y, Z), float32; 0 where there is no tissue.
    """
    shape = next(iter(layers.values())).shape
    signal = np.zeros((channels, *shape), np.float32)
    for tissue, mask in layers.items():
        for channel, mean in enumerate(contrast[tissue]):
            if not np.isnan(mean):
                signal[channel][mask] = mean
    return signal


def acquire(
    rng: np.random.Generator, signal: np.ndarray, body: np.ndarray, scanner: Scanner
) -> np.ndarray:
    """Turn the noise-free signal of one channel into an image.

    The noise is Rician, as in magnitude images. Air is set to exactly 0, as in BraTS files, and
    tissue to at least 1, so that a normalisation over non-zero voxels sees the anatomy alone.

    Args:
        rng: source of randomness.
        signal: noise-free signal of shape (X, Y, Z).
        body: boolean mask of shape (X, Y, Z), False in air.
        scanner: image quality of the channel.

    Returns:
        Image of shape (X, Y, Z), int16.
    """
    gain = rng.uniform(1 - scanner.gain, 1 + scanner.gain)
    bias = np.exp(scanner.bias * smooth_noise(rng, signal.shape, (4, 4, 4)))
    real = gaussian_filter(signal, scanner.blur) * bias
    in_phase, quadrature = scanner.noise * rng.standard_normal((2, *signal.shape), np.float32)
    image = gain * np.hypot(real + in_phase, quadrature)
    return np.where(body, np.maximum(np.rint(image), 1), 0).astype(np.int16)
