"""What cases measure, in the axes of training."""

import nibabel as nib
import numpy as np
import pytest

from lora_ext.data.survey import survey_cases


def test_survey_is_in_axes_to_the_right_front_and_up(tmp_path):
    voxels = np.ones((6, 8, 10), np.float32)
    affine = np.array([[0, 0, 3.0, 0], [-2.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]])
    for name in ("image", "label"):
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / f"{name}.nii.gz")
    item = {"case": "a", "image": str(tmp_path / "image.nii.gz"),
            "label": str(tmp_path / "label.nii.gz"), "channels": [0]}  # fmt: skip
    found = survey_cases([item], {"T1w": "mr"})[0]
    assert found.size == (10, 6, 8)
    assert found.spacing == pytest.approx((3, 2, 1))
    assert found.labels == {1: 480}
