"""The prostate phantom: T2 hides where the transition zone ends, ADC hides the zones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from lora_ext.phantoms.prostatex import PROSTATEX, add_texture

SIZE = (64, 64, 32)
OUTSIDE, PERIPHERAL, TRANSITION = range(3)


@pytest.fixture(scope="module")
def cases():
    return [PROSTATEX.draw(0, case, SIZE) for case in range(1, 13)]


def separation(image: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    spread = np.sqrt((image[first].var() + image[second].var()) / 2)
    return float((image[first].mean() - image[second].mean()) / spread)


@pytest.fixture(scope="module")
def separations(cases):
    """Mean difference in units of the spread: zone-zone, PZ-outside and TZ-outside, per channel."""
    table = []
    for image, label in cases:
        gland = label > 0
        # In front of the gland, where neither bladder nor rectum is.
        front = np.cumsum(gland[:, ::-1], axis=1)[:, ::-1] > 0
        shell = front & binary_dilation(gland, iterations=4) & ~binary_dilation(gland)
        zones = label == PERIPHERAL, label == TRANSITION
        pairs = (zones, (zones[0], shell), (zones[1], shell))
        table.append([[separation(i, a, b) for a, b in pairs] for i in image.astype(float)])
    return np.mean(table, axis=0)


def test_t2_shows_the_peripheral_zone_and_hides_the_border_of_the_transition_zone(separations):
    zones, peripheral, transition = separations[0]
    assert zones > 1.5
    assert peripheral > 1.5
    assert abs(transition) < 0.75


def test_adc_shows_the_gland_and_hides_its_zones(separations):
    zones, peripheral, transition = separations[1]
    assert abs(zones) < 0.75
    assert peripheral > 1.5
    assert transition > 1.5


def test_both_zones_are_in_every_case_and_of_like_size(cases):
    for _, label in cases:
        assert set(np.unique(label)) == {0, 1, 2}
        assert 0.25 < np.mean(label[label > 0] == PERIPHERAL) < 0.75


def test_the_peripheral_zone_lies_behind_the_transition_zone(cases):
    for _, label in cases:
        behind, front = (np.argwhere(label == value)[:, 1].mean() for value in (1, 2))
        assert behind > front + 3


def test_the_gland_is_35_to_55_mm_wide_and_inside_the_image(cases):
    for _, label in cases:
        gland = label > 0
        width_mm = np.count_nonzero(gland.any((1, 2))) * 128 / SIZE[0] * PROSTATEX.spacing[0]
        assert 34 <= width_mm <= 57
        assert np.count_nonzero(gland[1:-1, 1:-1, 1:-1]) == np.count_nonzero(gland)


def test_texture_leaves_the_mean_and_the_rest_of_the_image_as_they_are():
    region = np.zeros(SIZE, bool)
    region[10:40, 10:40, 5:20] = True
    signal = np.full(SIZE, 450, np.float32)
    add_texture(np.random.default_rng(0), signal, region, 75)
    assert signal[region].mean() == pytest.approx(450, abs=0.1)
    assert signal[region].std() > 20
    assert np.all(signal[~region] == 450)


def test_image_and_label_have_the_promised_types_and_shapes(cases):
    image, label = cases[0]
    assert (image.dtype, image.shape) == (np.int16, (2, *SIZE))
    assert (label.dtype, label.shape) == (np.uint8, SIZE)
