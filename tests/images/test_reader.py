"""Any image is opened in one way, also in MONAI's chain: every format, mixed formats, batches."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, NibabelReader
from monai.transforms import Compose, LoadImage, LoadImaged, Orientationd

from lora_ext.images.reader import VolumeReader, files_of, open_image

FILES = ["a.nii.gz", "a.nii", "b.nrrd", "c.nhdr", "d.mha", "e.mhd"]
READER = "lora_ext.images.VolumeReader"


def voxels(seed=0, channels=0):
    shape = (7, 6, 5, channels) if channels else (7, 6, 5)
    return np.random.default_rng(seed).integers(0, 999, shape).astype(np.int16)


def load(path):
    return LoadImage(reader=READER, image_only=True, ensure_channel_first=True)(path)


@pytest.mark.parametrize("name", [*FILES, "series"])
def test_every_format_loads_to_one_tensor_and_affine(tmp_path, write_image, oblique, name):
    image = load(write_image(tmp_path / name, voxels(), oblique))
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image.numpy(), voxels()[None])
    np.testing.assert_allclose(image.affine.numpy(), oblique, atol=1e-6)
    assert str(image.meta["space"]) == "RAS"


@pytest.mark.parametrize("name", FILES)
def test_channels_come_first(tmp_path, write_image, oblique, name):
    image = load(write_image(tmp_path / name, voxels(channels=3), oblique))
    np.testing.assert_array_equal(image.numpy(), voxels(channels=3).transpose(3, 0, 1, 2))
    np.testing.assert_allclose(image.affine.numpy(), oblique, atol=1e-6)


def test_the_channels_of_a_case_may_come_in_different_formats(tmp_path, write_image, oblique):
    names = ["a_T1.mha", "a_T2.nii.gz", "a_T1c", "a_FLAIR.nrrd"]
    paths = [write_image(tmp_path / n, voxels(i), oblique) for i, n in enumerate(names)]
    image = load(paths)
    np.testing.assert_array_equal(image.numpy(), np.stack([voxels(i) for i in range(4)]))
    np.testing.assert_allclose(image.affine.numpy(), oblique, atol=1e-6)
    assert image.meta["filename_or_obj"] == paths[0]


def test_files_with_a_channel_axis_are_put_one_after_the_other(tmp_path, write_image, oblique):
    first = write_image(tmp_path / "a.nrrd", voxels(0, 2), oblique)
    second = write_image(tmp_path / "b.nii.gz", voxels(1), oblique)
    expected = np.concatenate([voxels(0, 2).transpose(3, 0, 1, 2), voxels(1)[None]])
    np.testing.assert_array_equal(load([first, second]).numpy(), expected)


def test_nifti_is_what_monais_reader_gives(tmp_path, write_image, oblique):
    paths = [write_image(tmp_path / f"{i}.nii.gz", voxels(i), oblique) for i in range(2)]
    for given in (paths[:1], paths):
        mine, theirs = VolumeReader(), NibabelReader()
        array, meta = mine.get_data(mine.read(given))
        expected, expected_meta = theirs.get_data(theirs.read(given))
        np.testing.assert_array_equal(array, expected)
        for key, value in meta.items():
            np.testing.assert_array_equal(value, expected_meta[key])


def test_the_middle_of_a_name_does_not_choose_the_reader(tmp_path, write_image, oblique):
    """MONAI alone reads a.nii.b.mha as NIfTI, since the name has .nii in it."""
    path = write_image(tmp_path / "a.nii.b.mha", voxels(), oblique)
    np.testing.assert_array_equal(load(path).numpy(), voxels()[None])


def test_files_on_different_grids_are_refused_by_name(tmp_path, write_image, oblique):
    first = write_image(tmp_path / "a.nrrd", voxels(), oblique)
    second = write_image(tmp_path / "b.nii.gz", voxels(), np.eye(4))
    with pytest.raises(ValueError, match=r"b\.nii\.gz: expected the affine of .*a\.nrrd"):
        load([first, second])


def test_an_error_is_said_once_and_no_other_reader_is_tried(tmp_path, write_image, oblique, caplog):
    folder = write_image(tmp_path / "series", voxels(), oblique, skip=[2])
    with pytest.raises(ValueError, match="got 8 mm to"):
        load(folder)
    said = [r.message for r in caplog.records if "nvImageCodec" not in r.message]
    assert not said  # MONAI tells of a decoder that pydicom could use


def test_cases_of_different_formats_make_a_batch(tmp_path, write_image, oblique):
    flipped = oblique.copy()  # the same place with the first axis the other way round
    flipped[:3, 0] *= -1
    flipped[:3, 3] += 6 * oblique[:3, 0]
    images = ["a.nrrd", "b.nii.gz", "series", "d.mha"]
    items = []
    for i, name in enumerate(images):
        label = ("label.mha", "label.nii.gz")[i % 2]
        array, affine = (voxels()[::-1], flipped) if i == 1 else (voxels(), oblique)
        items.append(
            {
                "image": write_image(tmp_path / name, array, affine),
                "label": write_image(tmp_path / f"{i}_{label}", array, affine),
            }
        )
    keys = ["image", "label"]
    steps = Compose(
        [
            LoadImaged(keys, reader=READER, image_only=True, ensure_channel_first=True),
            Orientationd(keys, axcodes="RAS", labels=None),
        ]
    )
    batch = next(iter(DataLoader(Dataset(items, steps), batch_size=4)))
    for key in keys:
        assert batch[key].shape == (4, 1, 5, 7, 6)
        assert all(torch.equal(one, batch[key][0]) for one in batch[key])
        np.testing.assert_allclose(batch[key].affine[1], batch[key].affine[0], atol=1e-4)


def test_a_float_header_scales_the_voxels_of_nifti(tmp_path, oblique):
    image = nib.Nifti1Image(voxels(), oblique)
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii.gz")
    stored = np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj)
    np.testing.assert_allclose(load(str(tmp_path / "a.nii.gz")).numpy()[0], stored)


@pytest.mark.parametrize("name", [*FILES, "series"])
def test_every_format_gives_the_same_image(tmp_path, write_image, oblique, name):
    image = open_image(write_image(tmp_path / name, voxels(), oblique))
    assert image.shape == (7, 6, 5)
    np.testing.assert_allclose(image.affine, oblique, atol=1e-6)
    np.testing.assert_array_equal(image.read(), voxels())


@pytest.mark.parametrize("name", ["a.png", "a.dcm", "noending"])
def test_another_ending_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    words = (
        rf"{name}: expected a file that ends in \.nii\.gz, \.nii, \.hdr, \.nrrd, \.nhdr, \.mha, "
        r"\.mhd or the folder of a DICOM series, got another ending"
    )
    with pytest.raises(ValueError, match=words):
        open_image(str(tmp_path / name))


def test_an_image_knows_all_its_files(tmp_path, write_image, oblique):
    found = {
        name: [
            Path(path).name for path in files_of(write_image(tmp_path / name, voxels(), oblique))
        ]
        for name in [*FILES, "series"]
    }
    assert found == {
        "a.nii": ["a.nii"],
        "a.nii.gz": ["a.nii.gz"],
        "b.nrrd": ["b.nrrd"],
        "c.nhdr": ["c.nhdr", "c.raw"],
        "d.mha": ["d.mha"],
        "e.mhd": ["e.mhd", "e.raw"],
        "series": [f"I00{index}" for index in range(5)],
    }
    assert files_of(str(tmp_path / "missing.mhd")) == [str(tmp_path / "missing.mhd")]
