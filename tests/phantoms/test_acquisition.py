"""Painting and image formation, against hand-made values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rice

from lora_ext.phantoms.acquisition import SEE_THROUGH, Scanner, acquire, paint

SIZE = (40, 40, 40)


def test_later_tissues_cover_earlier_ones_unless_the_channel_sees_through_them():
    body = np.ones((1, 1, 3), bool)
    lesion = np.array([[[False, True, True]]])
    contrast = {"body": (10, 20), "lesion": (99, SEE_THROUGH)}
    signal = paint({"body": body, "lesion": lesion}, contrast, 2)
    assert signal[:, 0, 0].tolist() == [[10, 99, 99], [20, 20, 20]]


def test_noise_is_rician():
    flat = np.full(SIZE, 100, np.float32)
    scanner = Scanner(blur=0.5, noise=50, bias=0, gain=0)
    image = acquire(np.random.default_rng(0), flat, flat > 0, scanner)
    expected = rice(100 / 50, scale=50)
    assert image.mean() == pytest.approx(expected.mean(), rel=0.01)
    assert image.std() == pytest.approx(expected.std(), rel=0.02)


def test_air_is_zero_and_tissue_at_least_one():
    body = np.zeros(SIZE, bool)
    body[10:30, 10:30, 10:30] = True
    image = acquire(
        np.random.default_rng(0), np.zeros(SIZE, np.float32), body, Scanner(blur=0.5, noise=0)
    )
    assert image.dtype == np.int16
    assert np.array_equal(image, body)


def test_the_bias_field_is_smooth_and_of_the_strength_given():
    flat = np.full(SIZE, 10_000, np.float32)
    scanner = Scanner(blur=0.5, noise=0, bias=0.1, gain=0)
    image = acquire(np.random.default_rng(0), flat, flat > 0, scanner)
    assert np.log(image / 10_000).std() == pytest.approx(0.1, rel=0.01)
    assert np.abs(np.diff(np.log(image), axis=0)).max() < 0.05


def test_gain_changes_the_brightness_within_its_limit():
    flat = np.full((8, 8, 8), 1000, np.float32)
    scanner = Scanner(blur=0.5, noise=0, bias=0, gain=0.2)
    means = [acquire(np.random.default_rng(s), flat, flat > 0, scanner).mean() for s in range(20)]
    assert min(means) >= 800
    assert max(means) <= 1200
    assert np.ptp(means) > 100
