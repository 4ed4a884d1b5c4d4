"""The brain phantom: no channel shows all regions, all together do; its tumour is as promised."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from lora_ext.phantoms.anatomy import ellipsoid_radius, posed_grid
from lora_ext.phantoms.brats import (
    BRATS,
    CONTRAST,
    case_contrast,
    draw_distractors,
    draw_lesion,
    draw_tissues,
    enhances,
)

SIZE = (64, 64, 32)
HEALTHY, EDEMA, NON_ENHANCING, ENHANCING = range(4)
ALIKE = {
    "FLAIR": [(EDEMA, NON_ENHANCING), (EDEMA, ENHANCING), (NON_ENHANCING, ENHANCING)],
    "T1w": [(EDEMA, NON_ENHANCING), (EDEMA, ENHANCING), (NON_ENHANCING, ENHANCING)],
    "t1gd": [(HEALTHY, EDEMA)],
    "T2w": [(EDEMA, NON_ENHANCING), (EDEMA, ENHANCING), (NON_ENHANCING, ENHANCING)],
}


@pytest.fixture(scope="module")
def cases():
    return [BRATS.draw(0, case, SIZE) for case in range(1, 25)]


@pytest.fixture(scope="module")
def separations(cases):
    """Difference of two tissues' means in units of their spread: (channel, tissue, tissue)."""
    table = []
    for image, label in cases:
        if not np.any(label == ENHANCING):
            continue
        image = image.astype(float)
        # Brain around the tumour, without fluid: the darker three quarters in T2w.
        tumour = label > 0
        near = binary_dilation(tumour, iterations=3) & ~binary_dilation(tumour)
        near &= image[3] < np.percentile(image[3][near], 75)
        # The rim of the tumour is mixed with what lies around it.
        inside = np.where(binary_erosion(label > 0), label, -1)
        masks = [near, *(inside == value for value in (EDEMA, NON_ENHANCING, ENHANCING))]
        mean = np.array([[channel[mask].mean() for mask in masks] for channel in image])
        spread = np.array([[channel[mask].std() for mask in masks] for channel in image])
        difference = mean[:, :, None] - mean[:, None, :]
        table.append(difference / np.sqrt((spread[:, :, None] ** 2 + spread[:, None, :] ** 2) / 2))
    return np.mean(table, axis=0)


@pytest.mark.parametrize("channel", BRATS.channels)
def test_a_channel_alone_leaves_two_tissues_alike(separations, channel):
    index = BRATS.channels.index(channel)
    for first, second in ALIKE[channel]:
        assert abs(separations[index, first, second]) < 0.6


def test_all_channels_together_tell_every_pair_of_tissues_apart(separations):
    for first, second in combinations(range(4), 2):
        assert np.abs(separations[:, first, second]).max() > 1.5


def test_flair_and_t2w_show_the_whole_tumour_bright(separations):
    for channel in (0, 3):
        for value in (EDEMA, NON_ENHANCING, ENHANCING):
            assert separations[channel, value, HEALTHY] > 1.5


def test_t1gd_shows_the_core_dark_with_a_bright_shell(separations):
    assert separations[2, NON_ENHANCING, EDEMA] < -1.5
    assert separations[2, ENHANCING, EDEMA] > 1.5


def test_case_contrast_keeps_equal_means_equal():
    rng = np.random.default_rng(0)
    for _ in range(10):
        contrast = case_contrast(rng)
        for channel in (0, 1, 3):
            tumour = {contrast[t][channel] for t in ("edema", "non-enhancing", "enhancing")}
            assert len(tumour) == 1
        assert np.isnan(contrast["edema"][2])
        assert contrast["white"] == CONTRAST["white"]


def test_fluid_is_the_brightest_tissue_in_t2w():
    assert CONTRAST["csf"][3] == max(means[3] for means in CONTRAST.values())


def test_over_24_cases_all_labels_occur_and_some_case_has_no_enhancing_part(cases):
    found = [set(np.unique(label)) for _, label in cases]
    assert {0, 1, 2, 3} in found
    assert all(values in ({0, 1, 2, 3}, {0, 1, 2}) for values in found)
    assert found.count({0, 1, 2}) == 3


def test_the_tumour_never_touches_the_border_of_the_image(cases):
    for _, label in cases:
        inner = label[1:-1, 1:-1, 1:-1]
        assert np.count_nonzero(inner) == np.count_nonzero(label)


@pytest.mark.parametrize("size", [(48, 48, 24), (64, 64, 32), (96, 96, 36)])
def test_anatomy_scales_with_the_image(size, cases):
    places = np.argwhere(BRATS.draw(0, 1, size)[1] > 0) + 0.5
    expected = np.argwhere(cases[0][1] > 0) + 0.5
    centre, wanted = (places / size).mean(0), (expected / SIZE).mean(0)
    assert centre == pytest.approx(wanted, abs=0.05)


def test_image_and_label_have_the_promised_types_and_shapes(cases):
    image, label = cases[0]
    assert (image.dtype, image.shape) == (np.int16, (4, *SIZE))
    assert (label.dtype, label.shape) == (np.uint8, SIZE)


def test_tissues_lie_inside_one_another_and_distractors_inside_their_tissue():
    rng = np.random.default_rng(0)
    grid = posed_grid(rng, SIZE, degrees=15, shift=0.04, scale=(0.92, 1.02))
    layers = draw_tissues(rng, grid, ellipsoid_radius(grid, (0, 0, 0), (0.8, 0.92, 1.25)))
    masks = list(layers.values())
    for outer, inner in pairwise(masks):
        assert 0 < np.count_nonzero(inner) < np.count_nonzero(outer)
        assert not np.any(inner & ~outer)
    extra = draw_distractors(rng, grid, layers["grey"], layers["white"])
    assert np.any(extra["spot"])
    assert not np.any(extra["spot"] & ~layers["white"])
    assert 0 < extra["vessel"].sum() < 0.05 * layers["grey"].sum()
    assert not np.any(extra["vessel"] & ~layers["grey"])


@pytest.fixture(scope="module")
def drawn():
    cases = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        grid = posed_grid(rng, SIZE, degrees=15, shift=0.04, scale=(0.92, 1.02))
        head = ellipsoid_radius(grid, (0, 0, 0), (0.8, 0.92, 1.25))
        brain = head < 0.83
        cases.append((brain, draw_lesion(rng, grid, head, brain, enhancing=True)))
    return cases


def test_the_tumour_stays_inside_the_brain(drawn):
    for brain, label in drawn:
        assert not np.any((label > 0) & ~brain)


def test_regions_have_the_volumes_promised(drawn):
    for brain, label in drawn:
        whole, core, shell = (np.count_nonzero(label >= value) for value in (1, 2, 3))
        assert 0.019 < whole / np.count_nonzero(brain) < 0.081
        assert 0.29 < core / whole < 0.51
        assert 0.39 < shell / core < 0.61


def test_the_regions_are_nested_from_the_middle_outwards(drawn):
    for _, label in drawn:
        centre = np.argwhere(label >= 2).mean(0)
        distance = [
            np.linalg.norm(np.argwhere(label == value) - centre, axis=1).mean()
            for value in (2, 3, 1)
        ]
        assert distance == sorted(distance)


def test_without_enhancement_the_same_core_is_all_non_enhancing():
    labels = []
    for enhancing in (True, False):
        rng = np.random.default_rng(0)
        grid = posed_grid(rng, SIZE, degrees=15, shift=0.04, scale=(1, 1))
        head = ellipsoid_radius(grid, (0, 0, 0), (0.8, 0.92, 1.25))
        labels.append(draw_lesion(rng, grid, head, head < 0.83, enhancing))
    assert set(np.unique(labels[1])) == {0, 1, 2}
    assert np.array_equal(labels[0] >= 2, labels[1] >= 2)


def test_one_case_in_each_run_of_eight_does_not_enhance():
    for seed in range(5):
        flags = np.array([enhances(seed, case) for case in range(1, 81)]).reshape(10, 8)
        assert np.all(flags.sum(axis=1) == 7)
        assert len(set(flags.argmin(axis=1))) > 1
