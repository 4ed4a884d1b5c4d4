"""Orientation against nibabel's own canonical images, slices by hand."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from lora_ext.figures.planes import (
    PLANES,
    air_mask,
    busiest_slices,
    filled_box,
    grey_window,
    lps_spacing,
    to_lps,
)


def stored_as(codes: str, sizes: tuple[float, ...] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Return an affine whose voxel axes run along `codes` with the given sizes in mm."""
    rotation = np.zeros((3, 3))
    for voxel_axis, code in enumerate(codes):
        world = next(index for index, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        rotation[world, voxel_axis] = (1 if code in "RAS" else -1) * sizes[voxel_axis]
    affine = np.eye(4)
    affine[:3, :3] = rotation
    return affine


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "SRP", "PIR", "AIL"])
def test_any_storage_order_turns_into_the_same_lps_volume(codes: str) -> None:
    volume = np.random.default_rng(0).normal(size=(4, 5, 6))
    affine = stored_as(codes, (0.6, 0.8, 3.0))
    canonical = nib.as_closest_canonical(nib.Nifti1Image(volume, affine))
    # RAS to LPS is a flip of the first two axes.
    expected = canonical.get_fdata()[::-1, ::-1]
    np.testing.assert_array_equal(to_lps(volume[None], affine)[0], expected)
    assert lps_spacing(affine) == pytest.approx(canonical.header.get_zooms())


def test_slices_show_the_patients_right_on_the_left_and_the_head_or_front_up() -> None:
    volume = np.zeros((3, 4, 5), dtype=int)  # left, posterior, superior
    volume[0, :, :], volume[:, 0, :], volume[:, :, -1] = 1, 2, 3  # right, anterior, superior end
    axial, coronal, sagittal = (plane.cut(volume, 1) for plane in PLANES)
    assert [plane.origin for plane in PLANES] == ["upper", "lower", "lower"]
    assert axial.shape == (4, 3)
    assert (axial[0] == 2).all()  # the first row, drawn on top, is anterior
    assert (axial[1:, 0] == 1).all()  # the first column is the patient's right
    assert coronal.shape == (5, 3)
    assert (coronal[-1] == 3).all()  # the last row, drawn on top, is superior
    assert (coronal[:-1, 0] == 1).all()
    assert sagittal.shape == (5, 4)
    assert (sagittal[-1] == 3).all()
    assert (sagittal[:-1, 0] == 2).all()


def test_a_planes_rows_and_columns_take_their_own_sizes() -> None:
    assert [plane.of((1.0, 2.0, 3.0)) for plane in PLANES] == [(2.0, 1.0), (3.0, 1.0), (3.0, 2.0)]


def test_the_busiest_slice_has_most_foreground_of_all_regions_together() -> None:
    masks = np.zeros((2, 10, 10, 10), dtype=bool)
    masks[0, 2:5, 3, 4] = True
    masks[:, 8, 3, 4] = True
    assert busiest_slices(masks) == (8, 3, 4)


def test_without_foreground_the_middle_is_shown() -> None:
    assert busiest_slices(np.zeros((1, 8, 9, 4))) == (4, 4, 2)


def test_the_box_holds_everything_filled_with_a_margin_of_two_voxels() -> None:
    filled = np.zeros((20, 20, 20), dtype=bool)
    filled[5:9, 6:8, 10:12] = True
    filled[15, 7, 10] = True
    assert filled_box(filled) == (slice(3, 18), slice(4, 10), slice(8, 14))


def test_with_nothing_filled_the_box_is_the_whole_volume() -> None:
    nothing = np.zeros((5, 6, 7), dtype=bool)
    assert nothing[filled_box(nothing)].shape == (5, 6, 7)


def test_air_is_what_equals_a_constant_border() -> None:
    volume = np.zeros((6, 7, 8))
    volume[1:5, 1:5, 1:5] = 3.0
    volume[2, 2, 2] = 0.0  # a cavity of air
    np.testing.assert_array_equal(air_mask(volume), volume == 0)
    volume[-1, -1, -1] = 1.0  # no constant border: 0 may be a tissue's value
    assert not air_mask(volume).any()


def test_the_grey_window_leaves_outliers_out() -> None:
    assert grey_window(np.arange(1001.0)) == (10.0, 995.0)
    assert grey_window(np.zeros(0)) == (0.0, 1.0)
