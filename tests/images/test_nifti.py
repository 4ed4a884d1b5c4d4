"""NIfTI through nibabel: header, voxels, and what is no NIfTI."""

from __future__ import annotations

import itk
import nibabel as nib
import numpy as np
import pytest

from lora_ext.images.nifti import open_nifti
from lora_ext.images.reader import open_image


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_image_has_the_files_shape_type_and_affine(tmp_path, write_image, oblique, name):
    voxels = np.random.default_rng(0).integers(0, 99, (4, 5, 6, 2)).astype(np.int16)
    path = write_image(tmp_path / name, voxels, oblique)
    image = open_nifti(path)
    assert (image.path, image.shape, image.num_channels) == (path, (4, 5, 6, 2), 2)
    np.testing.assert_allclose(image.affine, oblique, atol=1e-6)
    np.testing.assert_array_equal(image.read(), voxels)
    assert image.read().dtype == np.int16


def test_another_format_behind_the_ending_is_named(tmp_path):
    mgh = nib.MGHImage(np.zeros((4, 5, 6), np.float32), np.eye(4))
    mgh.to_filename(tmp_path / "a.mgh")
    (tmp_path / "a.mgh").rename(tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"a\.nii: .*got a damaged or truncated one \("):
        open_nifti(str(tmp_path / "a.nii"))


def test_a_pair_of_files_is_one_image(tmp_path, oblique):
    voxels = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)
    nib.save(nib.Nifti1Pair(voxels, oblique), tmp_path / "a.img")
    image = open_image(str(tmp_path / "a.hdr"))
    np.testing.assert_array_equal(image.read(), voxels)
    np.testing.assert_allclose(image.affine, oblique, atol=1e-6)
    (tmp_path / "a.img").write_bytes((tmp_path / "a.img").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"a\.hdr: .*got a damaged or truncated one"):
        image.read()
    (tmp_path / "a.img").unlink()
    with pytest.raises(ValueError, match=r"a\.hdr: found no data file a\.img beside it"):
        open_image(str(tmp_path / "a.hdr"))


def test_an_analyze_header_is_no_nifti(tmp_path):
    nib.save(nib.AnalyzeImage(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / "a.img")
    with pytest.raises(ValueError, match=r"a\.hdr: expected a NIfTI image, got a \w*Analyze"):
        open_image(str(tmp_path / "a.hdr"))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_channels_that_itk_puts_on_the_fifth_axis_are_the_fourth(tmp_path, name):
    """ITK wrote the file: vectors of a NIfTI lie on its fifth axis."""
    voxels = np.random.default_rng(0).random((4, 5, 6, 2)).astype(np.float32)
    written = itk.image_from_array(voxels.transpose(2, 1, 0, 3).copy(), is_vector=True)
    itk.imwrite(written, str(tmp_path / name))
    assert nib.load(tmp_path / name).shape == (4, 5, 6, 1, 2)
    image = open_image(str(tmp_path / name))
    assert image.shape == (4, 5, 6, 2)
    np.testing.assert_array_equal(image.read(), voxels)


def test_colours_are_called_that(tmp_path):
    colours = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ValueError, match="expected voxels of real numbers, got colours"):
        open_image(str(tmp_path / "a.nii"))
