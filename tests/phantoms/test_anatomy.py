"""Coordinates, ellipsoids and smooth noise against formulas; random generators of a case."""

from __future__ import annotations

import numpy as np
import pytest

from lora_ext.phantoms import ANATOMIES
from lora_ext.phantoms.anatomy import (
    case_generators,
    ellipsoid_radius,
    field_axis,
    posed_grid,
    smallest,
    smooth_noise,
)


def unposed(size):
    rng = np.random.default_rng(0)
    return posed_grid(rng, size, degrees=0, shift=0, scale=(1, 1))


def test_field_axis_holds_voxel_centres_between_the_borders():
    assert field_axis(4) == pytest.approx([-0.75, -0.25, 0.25, 0.75])


def test_without_a_pose_the_grid_is_the_field_of_view():
    grid = unposed((4, 6, 8))
    assert grid[0][:, 2, 3] == pytest.approx(field_axis(4))
    assert grid[1][1, :, 3] == pytest.approx(field_axis(6))
    assert grid[2][1, 2, :] == pytest.approx(field_axis(8))


def test_a_pose_turns_and_scales_but_does_not_bend():
    rng = np.random.default_rng(3)
    grid = posed_grid(rng, (8, 8, 8), degrees=15, shift=0.1, scale=(0.8, 0.8))
    steps = np.array([np.diff(grid, axis=axis).reshape(3, -1).mean(1) for axis in (1, 2, 3)])
    assert steps @ steps.T == pytest.approx(np.eye(3) * (0.25 / 0.8) ** 2, abs=1e-5)
    assert np.linalg.det(steps) > 0


def test_ellipsoid_has_the_volume_of_the_formula():
    inside = ellipsoid_radius(unposed((80, 80, 80)), (0.1, 0, -0.1), (0.6, 0.4, 0.3), tilt=30) < 1
    assert inside.mean() * 8 == pytest.approx(4 / 3 * np.pi * 0.6 * 0.4 * 0.3, rel=0.01)


def test_tilt_turns_the_first_axis_towards_the_second():
    grid = unposed((40, 40, 4))
    x, y, _ = grid[:, ellipsoid_radius(grid, (0, 0, 0), (0.8, 0.2, np.inf), tilt=45) < 1]
    assert np.mean(x * y) > 0.05


def test_smooth_noise_is_standardised_smooth_and_repeatable():
    noise = smooth_noise(np.random.default_rng(0), (64, 64, 32), (6, 6, 5))
    assert noise.mean() == pytest.approx(0, abs=1e-5)
    assert noise.std() == pytest.approx(1, abs=1e-5)
    assert np.abs(np.diff(noise, axis=0)).max() < 0.5
    again = smooth_noise(np.random.default_rng(0), (64, 64, 32), (6, 6, 5))
    assert np.array_equal(noise, again)


def test_smooth_noise_is_the_same_field_at_every_size():
    coarse = smooth_noise(np.random.default_rng(0), (32, 32, 32), (5, 5, 5))
    fine = smooth_noise(np.random.default_rng(0), (96, 96, 96), (5, 5, 5))
    assert np.corrcoef(coarse.ravel(), fine[1::3, 1::3, 1::3].ravel())[0, 1] > 0.999


def test_smallest_takes_the_lowest_values_of_the_region():
    field = np.arange(8.0).reshape(2, 2, 2)
    region = field >= 3
    assert sorted(field[smallest(field, region, 2)]) == [3, 4]
    assert np.array_equal(smallest(field, region, 99), region)
    assert np.count_nonzero(smallest(field, region, 0)) == 1


def test_generators_differ_between_seeds_cases_and_purposes():
    draws = {
        rng.random() for seed in (0, 1) for case in (1, 2) for rng in case_generators(seed, case)
    }
    assert len(draws) == 8


def test_generators_of_a_case_repeat():
    first, second = (case_generators(4, 2) for _ in range(2))
    assert [rng.random() for rng in first] == [rng.random() for rng in second]


@pytest.mark.parametrize("task", sorted(ANATOMIES))
def test_each_anatomy_draws_as_many_channels_and_labels_as_it_names(task):
    anatomy = ANATOMIES[task]
    image, label = anatomy.draw(0, 1, (32, 32, 16))
    assert len(image) == len(anatomy.channels)
    assert label.max() < len(anatomy.labels)
    assert np.array_equal(anatomy.draw(0, 1, (32, 32, 16))[0], image)
