"""Resampling onto another grid, against MONAI's own and against functions of the place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch

from lora_ext.images import VolumeReader
from lora_ext.images.resampling import onto_grid

TARGET = np.array([[0, 2.0, 0, -3], [-1.5, 0, 0, 20], [0, 0, 3, 1], [0, 0, 0, 1]])


def ramp(affine, shape):
    """A linear function of the place in mm, sampled on a grid: linear interpolation is exact."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    place = index @ affine[:3, :3].T + affine[:3, 3]
    return (place @ [1.0, -2.0, 0.5]).astype(np.float32)


def test_a_ramp_is_exact_inside_and_the_smallest_value_outside():
    source = np.diag([0.9, 1.1, 1.3, 1.0])
    source[:3, 3] = (-12, 2, -2)
    voxels = ramp(source, (20, 30, 30))
    found = onto_grid(voxels, source, (8, 9, 7), TARGET)
    index = np.stack(np.meshgrid(*map(np.arange, (8, 9, 7)), indexing="ij"), axis=-1)
    place = (index @ TARGET[:3, :3].T + TARGET[:3, 3] - source[:3, 3]) @ np.linalg.inv(
        source[:3, :3]
    )
    inside = ((place >= 0) & (place <= [19, 29, 29])).all(axis=-1)
    far = ((place < -1) | (place > [20, 30, 30])).any(axis=-1)
    assert inside.sum() > 100
    assert far.sum() > 20
    assert np.allclose(found[inside], ramp(TARGET, (8, 9, 7))[inside], atol=1e-4)
    assert (found[far] == voxels.min()).all()


def test_resampling_is_that_of_monai_inside(oblique):
    voxels = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    shifted = oblique.copy()
    shifted[:3, 3] += oblique[:3, :3] @ [3.3, 2.6, 4.2]
    match = ResampleToMatch(mode="bilinear", padding_mode="border")
    image, grid = (MetaTensor(torch.from_numpy(voxels)[None], affine=a) for a in (oblique, shifted))
    expected = match(image, grid)[0].numpy()
    found = onto_grid(voxels, oblique, voxels.shape, shifted)
    assert np.allclose(found[:15, :15, :14], expected[:15, :15, :14], atol=1e-4)


def test_files_on_other_grids_are_brought_onto_the_first_if_that_was_asked_for(
    tmp_path, write_image
):
    source = np.diag([1.0, 1.0, 1.0, 1.0])
    source[:3, 3] = (-10, 0, -5)
    first = np.random.default_rng(1).integers(0, 9, (8, 9, 7)).astype(np.int16)
    paths = [
        write_image(tmp_path / "a.nii.gz", first, TARGET),
        write_image(tmp_path / "b.nrrd", ramp(source, (40, 40, 40)), source),
        write_image(tmp_path / "c.nii.gz", first, TARGET),
    ]
    with pytest.raises(
        ValueError, match=r"b\.nrrd: expected the shape .* --resample_channels True"
    ):
        VolumeReader().get_data(paths)
    array, meta = VolumeReader(resample_channels=True).get_data(paths)
    assert array.shape == (3, 8, 9, 7)
    assert (array[0] == first).all()
    assert (array[2] == first).all()
    assert np.allclose(array[1], ramp(TARGET, (8, 9, 7)), atol=1e-4)
    assert np.allclose(meta["affine"], TARGET)


def test_voxels_that_are_no_number_are_0_if_that_was_asked_for(tmp_path, write_image):
    voxels = np.ones((4, 5, 6), np.float32)
    voxels[0, 0, :3] = (np.nan, np.inf, -np.inf)
    path = write_image(tmp_path / "a.nii.gz", voxels, np.diag([2.0, 2, 2, 1]))
    assert not np.isfinite(VolumeReader().get_data([path])[0]).all()
    found, _ = VolumeReader(nan_to_num=True).get_data([path])
    assert (found == np.nan_to_num(voxels, posinf=0, neginf=0)).all()
