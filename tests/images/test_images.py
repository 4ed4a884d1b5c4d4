"""Any image is opened in one way, and all its files on disk are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lora_ext.images.reader import files_of, open_image

NAMES = ["a.nii", "a.nii.gz", "b.nrrd", "c.nhdr", "d.mha", "e.mhd", "series"]


def voxels():
    return np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_same_image(tmp_path, write_image, oblique, name):
    image = open_image(write_image(tmp_path / name, voxels(), oblique))
    assert image.shape == (4, 5, 6)
    np.testing.assert_allclose(image.affine, oblique, atol=1e-6)
    np.testing.assert_array_equal(image.read(), voxels())


@pytest.mark.parametrize("name", ["a.png", "a.dcm", "noending"])
def test_another_ending_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    words = (
        rf"{name}: found no ending of an image; allowed are \.nii\.gz, \.nii, \.nrrd, \.nhdr, "
        r"\.mha, \.mhd, or the folder of a DICOM series"
    )
    with pytest.raises(ValueError, match=words):
        open_image(str(tmp_path / name))


def test_an_image_knows_all_its_files(tmp_path, write_image, oblique):
    found = {
        name: [
            Path(path).name for path in files_of(write_image(tmp_path / name, voxels(), oblique))
        ]
        for name in NAMES
    }
    assert found == {
        "a.nii": ["a.nii"],
        "a.nii.gz": ["a.nii.gz"],
        "b.nrrd": ["b.nrrd"],
        "c.nhdr": ["c.nhdr", "c.raw"],
        "d.mha": ["d.mha"],
        "e.mhd": ["e.mhd", "e.raw"],
        "series": [f"I00{index}" for index in range(6)],
    }
    assert files_of(str(tmp_path / "missing.mhd")) == [str(tmp_path / "missing.mhd")]
