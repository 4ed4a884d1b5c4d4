"""Segmentations in each format, read by another library than wrote them where there is one."""

from __future__ import annotations

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage

from lora_ext.images import open_image
from lora_ext.images.writer import ProbabilityWriter, segmentation_writer


@pytest.fixture
def save(tmp_path, oblique):
    """A function that saves a label map named pat.1.b in a format -> its path."""

    def run(output_ext, depth=60):
        labels = torch.zeros(1, 40, 50, depth, dtype=torch.uint8)
        labels[0, 1, 2, min(3, depth - 1)] = 3
        meta = {"filename_or_obj": "pat.1.b.nii.gz", "affine": oblique, "original_affine": oblique}
        SaveImage(
            output_dir=tmp_path,
            output_postfix="",
            output_ext=output_ext,
            writer=segmentation_writer(output_ext),
            output_dtype=np.uint8,
            separate_folder=False,
            print_log=False,
        )(MetaTensor(labels, meta=meta))
        return tmp_path / f"pat.1.b{output_ext}"

    return run


@pytest.mark.parametrize("output_ext", [".nii.gz", ".nrrd", ".mha"])
def test_a_label_map_is_written_as_bytes_on_its_grid_under_the_cases_name(
    save, oblique, output_ext
):
    image = itk.imread(str(save(output_ext)))
    values = itk.array_from_image(image)
    assert values.dtype == np.uint8
    assert np.argwhere(values).tolist() == [[3, 2, 1]]
    place = image.TransformIndexToPhysicalPoint([1, 2, 3])
    np.testing.assert_allclose([-1, -1, 1] * np.array(place), (oblique @ [1, 2, 3, 1])[:3], 1e-5)


def test_nifti_has_the_affine_in_nibabel_too(save, oblique):
    image = nib.load(save(".nii.gz"))
    np.testing.assert_allclose(image.affine, oblique, atol=1e-5)
    assert image.get_data_dtype() == np.uint8


@pytest.mark.parametrize("output_ext", [".nii.gz", ".nrrd", ".mha"])
def test_files_are_compressed(save, output_ext):
    assert save(output_ext).stat().st_size < 40 * 50 * 60 / 50


@pytest.mark.parametrize("output_ext", [".nii.gz", ".nrrd", ".mha"])
def test_a_single_slice_stays_a_volume_in_its_place(save, oblique, output_ext):
    image = itk.imread(str(save(output_ext, depth=1)))
    assert list(itk.size(image)) == [40, 50, 1]
    assert itk.array_from_image(image)[0, 2, 1] == 3
    place = image.TransformIndexToPhysicalPoint([1, 2, 0])
    np.testing.assert_allclose([-1, -1, 1] * np.array(place), (oblique @ [1, 2, 0, 1])[:3], 1e-5)


def test_slicers_segmentation_has_names_values_and_colours(tmp_path, oblique):
    labels = np.zeros((6, 5, 4), np.uint8)
    labels[1:3, 2:4, 1], labels[4, 1:3, 2:] = 1, 3
    meta = {"filename_or_obj": "pat.nii.gz", "affine": oblique, "original_affine": oblique}
    SaveImage(
        output_dir=tmp_path, output_postfix="", output_ext=".seg.nrrd", output_dtype=np.uint8,
        writer=segmentation_writer(".seg.nrrd", {3: "core", 1: "edema: all"}), resample=False,
        separate_folder=False, print_log=False,
    )(MetaTensor(torch.from_numpy(labels)[None], meta=meta))  # fmt: skip
    image = open_image(str(tmp_path / "pat.seg.nrrd"))
    assert image.segments == {1: "edema: all", 3: "core"}
    np.testing.assert_array_equal(image.read(), labels)
    np.testing.assert_allclose(image.affine, oblique, atol=1e-5)
    header = (tmp_path / "pat.seg.nrrd").read_bytes().partition(b"\n\n")[0].decode()
    fields = dict(line.split(":=", 1) for line in header.splitlines() if ":=" in line)
    assert fields["Segment0_Extent"] == "0 5 0 4 0 3"
    colours = [[float(x) for x in fields[f"Segment{n}_Color"].split()] for n in (0, 1)]
    assert all(len(rgb) == 3 and 0 <= min(rgb) <= max(rgb) <= 1 for rgb in colours)
    assert colours[0] != colours[1]


def test_another_format_is_refused():
    with pytest.raises(ValueError, match=r"output_ext: expected one of \.nii\.gz, .*got '\.png'"):
        segmentation_writer(".png")


@pytest.mark.parametrize("regions", [1, 3])
def test_probabilities_are_a_volume_per_region_in_float32(tmp_path, oblique, regions):
    maps = torch.rand(regions, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    meta = {"filename_or_obj": "pat.nii.gz", "affine": oblique, "original_affine": oblique}
    SaveImage(
        output_dir=tmp_path, output_postfix="", output_ext=".nii.gz", writer=ProbabilityWriter,
        output_dtype=np.float32, resample=False, separate_folder=False, print_log=False,
    )(MetaTensor(maps, meta=meta))  # fmt: skip
    image = nib.load(tmp_path / "pat.nii.gz")
    assert image.get_data_dtype() == np.float32
    assert image.shape == (4, 5, 6, regions)
    np.testing.assert_array_equal(image.get_fdata(), np.moveaxis(maps.numpy(), 0, 3))
    np.testing.assert_allclose(image.affine, oblique, atol=1e-5)
