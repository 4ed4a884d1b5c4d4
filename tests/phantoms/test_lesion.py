"""The tumour: nested, of the sizes promised, inside the brain."""

from __future__ import annotations

import numpy as np
import pytest

from lora_ext.phantoms.anatomy import ellipsoid_radius, posed_grid
from lora_ext.phantoms.brats import draw_lesion, enhances

SIZE = (64, 64, 32)


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
