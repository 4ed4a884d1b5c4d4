"""NIfTI through nibabel: header, voxels, and what is no NIfTI."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from lora_ext.images.nifti import open_nifti


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
