"""DICOM series: geometry, rescaling, and every folder that is not one whole series."""

from __future__ import annotations

import re
from pathlib import Path

import itk
import numpy as np
import pytest

from lora_ext.images.dicom import holds_dicom, open_series, series_files

UID = "1.2.826.0.1.3680043.2.1125.1"
OTHER_UID = "1.2.826.0.1.3680043.2.1125.2"
ONE_SERIES = "expected the slices of one DICOM series, one slice a file, and nothing else"


def volume(shape=(7, 6, 5)):
    return np.random.default_rng(0).integers(-100, 1000, shape).astype(np.int16)


@pytest.fixture
def folder(tmp_path, write_image, oblique):
    return Path(write_image(tmp_path / "series", volume(), oblique))


def refused(folder, words):
    with pytest.raises(ValueError, match=words):
        open_series(str(folder))


def test_a_series_has_the_volumes_grid_and_voxels_whatever_its_files_are_called(folder, oblique):
    image = open_series(str(folder))
    assert image.shape == (7, 6, 5)
    np.testing.assert_allclose(image.affine, oblique, atol=1e-10)
    np.testing.assert_array_equal(image.read(), volume())
    in_order = [itk.array_from_image(itk.imread(path))[0].T for path in series_files(str(folder))]
    assert not np.array_equal(np.stack(in_order, axis=2), volume())  # the names are shuffled


def test_slices_go_along_their_normal_whatever_their_numbers(tmp_path, write_image, oblique):
    """A stack numbered from the other end is the same volume."""
    reversed_stack = oblique.copy()
    reversed_stack[:3, 2] *= -1
    reversed_stack[:3, 3] += 4 * oblique[:3, 2]
    image = open_series(write_image(tmp_path / "series", volume()[..., ::-1], reversed_stack))
    np.testing.assert_allclose(image.affine, oblique, atol=1e-10)
    np.testing.assert_array_equal(image.read(), volume())


def test_each_slices_own_rescale_slope_and_intercept_are_applied(tmp_path, write_image, oblique):
    """As in PET; the first slice holds integers, of which ITK alone would make the others' type."""
    values = np.random.default_rng(0).integers(0, 999, (7, 6, 5)).astype(np.float32)
    slopes = np.array([1, 0.5, 0.25, 0.125, 2.0], np.float32)
    values = values * slopes - 40

    def tags(index):
        return {"0028|1053": str(slopes[index]), "0028|1052": "-40"}

    image = open_series(write_image(tmp_path / "series", values, oblique, tags=tags))
    np.testing.assert_array_equal(image.read(), values)


def test_hidden_files_do_not_count(folder):
    for name in (".DS_Store", "._I000"):
        (folder / name).write_text("macOS", encoding="utf-8")
    assert open_series(str(folder)).shape == (7, 6, 5)
    assert not any("/." in path for path in series_files(str(folder)))


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / ".hidden").touch()
    refused(tmp_path, f"^{tmp_path}: {ONE_SERIES}; got no file$")


def test_a_folder_in_a_series_is_refused(folder):
    (folder / "more").mkdir()
    refused(folder, f"series: {ONE_SERIES}; got the folders more in it")


def test_a_file_that_is_no_dicom_image_is_refused(folder):
    (folder / "notes.txt").write_text("a note", encoding="utf-8")
    refused(folder, f"series: {ONE_SERIES}; got no readable DICOM image in notes.txt")


def test_two_series_in_a_folder_are_both_named(tmp_path, write_image, oblique):
    for uid, text in ((UID, "axial T1"), (OTHER_UID, "axial FLAIR")):

        def tags(index, text=text, start=uid[-1]):
            return {"0008|103e": text}

        write_image(tmp_path / uid, volume(), oblique, uid=uid, tags=tags)
    for path in (tmp_path / OTHER_UID).iterdir():
        path.rename(tmp_path / UID / f"second_{path.name}")
    found = (
        f"expected one DICOM series, got 2: {re.escape(UID)} (axial T1, 5 of the files) and "
        f"{re.escape(OTHER_UID)} (axial FLAIR, 5 of the files)"
    )
    refused(tmp_path / UID, found.replace("(", r"\(").replace(")", r"\)"))


def test_truncated_slices_are_named(folder):
    for name in ("I002", "I004"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    refused(folder, f"series: {ONE_SERIES}; got no readable DICOM image in I002, I004")


def test_several_frames_or_colours_in_a_file_are_refused(tmp_path, write_image, oblique):
    frames = itk.image_from_array(np.ascontiguousarray(volume().T, np.uint16))
    (tmp_path / "frames").mkdir()
    writer = itk.ImageFileWriter.New(frames, FileName=str(tmp_path / "frames" / "all"))
    writer.SetImageIO(itk.GDCMImageIO.New())
    writer.Update()
    refused(tmp_path / "frames", "frames/all: expected one grey slice a file, got 5 frames")
    colours = itk.image_from_array(np.zeros((1, 6, 7, 3), np.uint8), is_vector=True)
    (tmp_path / "colours").mkdir()
    writer = itk.ImageFileWriter.New(colours, FileName=str(tmp_path / "colours" / "one"))
    writer.SetImageIO(itk.GDCMImageIO.New())
    writer.Update()
    refused(
        tmp_path / "colours", "colours/one: expected one grey slice a file, got 1 frames of 3 c"
    )


def test_a_single_slice_is_refused(tmp_path, write_image, oblique):
    path = write_image(tmp_path / "series", volume(), oblique, skip=(0, 1, 3, 4))
    refused(path, "series: expected two or more slices, got one")


def test_a_missing_slice_is_found_between_the_two_around_it(tmp_path, write_image, oblique):
    whole = open_series(write_image(tmp_path / "whole", volume((7, 6, 9)), oblique))
    for missing in range(1, 8):
        path = write_image(tmp_path / f"{missing}", volume((7, 6, 9)), oblique, skip=[missing])
        refused(path, "expected 4 mm to the next slice, as between the others, got 8 mm to .*/I00")
    assert whole.shape == (7, 6, 9)


def rewrite(folder, name, **changes):
    """Write one slice again with another origin, direction, spacing or size."""
    path = str(folder / name)
    files = itk.GDCMImageIO.New()
    files.KeepOriginalUIDOn()
    reader = itk.ImageFileReader[itk.Image[itk.SS, 3]].New(FileName=path)
    reader.SetImageIO(files)
    reader.Update()
    image = reader.GetOutput()
    fields = image.GetMetaDataDictionary()
    if "shape" in changes:
        image = itk.image_from_array(np.zeros(changes["shape"], np.int16))
        image.SetMetaDataDictionary(fields)
    if "shift" in changes:
        moved = np.asarray(image.GetOrigin()) + changes["shift"]
        image.SetOrigin(moved.tolist())
        fields["0020|0032"] = "\\".join(f"{x:.10g}" for x in moved)
    if "spacing" in changes:
        image.SetSpacing(changes["spacing"])
        fields["0028|0030"] = "\\".join(f"{x:g}" for x in changes["spacing"][1::-1])
    writer = itk.ImageFileWriter.New(image, FileName=path)
    writer.SetImageIO(files)
    writer.Update()


def along(oblique, distance):
    """A shift in LPS along the stack."""
    return np.diag([-1, -1, 1]) @ oblique[:3, 2] / 4 * distance


def test_uneven_slices_are_refused_and_rounded_positions_are_not(folder, oblique):
    middle = sorted_names(folder)[2]
    rewrite(folder, middle, shift=along(oblique, 0.02))
    np.testing.assert_allclose(open_series(str(folder)).affine, oblique, atol=1e-8)
    rewrite(folder, middle, shift=along(oblique, 1.2))
    refused(folder, rf"{middle}: expected .*got (2.78|5.22) mm to")


@pytest.mark.parametrize("step", [0.625, 1.25, 3.0])
def test_positions_rounded_to_a_tenth_of_a_millimetre_make_an_even_stack(
    tmp_path, write_image, step
):
    stack = np.diag([0.5, 0.5, step, 1.0])
    folder = write_image(tmp_path / "series", volume((7, 6, 12)), stack)
    for index, name in enumerate(sorted_names(folder)):
        rewrite(Path(folder), name, shift=[0, 0, round(index * step, 1) - index * step])
    np.testing.assert_allclose(open_series(folder).affine[2, 2], step, atol=0.01)
    missing = sorted_names(folder)[5]
    (Path(folder) / missing).unlink()
    refused(folder, "a slice is missing, or they are uneven")


def sorted_names(folder):
    """File names in the order of the slices."""
    numbers = {}
    for path in series_files(str(folder)):
        header = itk.GDCMImageIO.New()
        header.SetFileName(path)
        header.ReadImageInformation()
        numbers[int(header.GetMetaDataDictionary()["0020|0013"])] = Path(path).name
    return [numbers[index] for index in sorted(numbers)]


def test_two_slices_in_one_place_are_refused(folder, oblique):
    """Two volumes in one series, as of a time series or of several echoes."""
    rewrite(folder, sorted_names(folder)[2], shift=along(oblique, -4))
    words = r"I00\d: expected one volume, .*got another slice in the same place, .*I00\d"
    refused(folder, words)


def test_a_stack_that_leans_is_refused(folder, oblique):
    """A CT with a tilted gantry, which ITK straightens."""
    sideways = np.diag([-1, -1, 1]) @ oblique[:3, 0]
    for index, name in enumerate(sorted_names(folder)):
        rewrite(folder, name, shift=0.2 * index * sideways)
    refused(
        folder,
        r"series: expected a stack at right angles .*got one that shifts sideways by 1\.2 mm",
    )


def test_a_slice_of_another_size_or_spacing_is_refused(tmp_path, write_image, oblique):
    folder = Path(write_image(tmp_path / "a", volume(), oblique))
    rewrite(folder, "I003", shape=(1, 6, 8))
    refused(folder, r"I003: expected a slice of \(7, 6\) voxels as in .*I000, got \(8, 6\)")
    folder = Path(write_image(tmp_path / "b", volume(), oblique))
    rewrite(folder, "I003", spacing=[1.5, 1.5, 4.0])
    refused(folder, r"I003: expected the slice axes of .*I000, \[\[.*in mm, got \[\[")


def test_dicom_is_found_in_a_folder_and_below_it(folder, tmp_path):
    (tmp_path / "text" / "deeper").mkdir(parents=True)
    (tmp_path / "text" / "deeper" / "a.txt").write_text("a note", encoding="utf-8")
    assert not holds_dicom(tmp_path / "text")
    (folder / "I000").rename(tmp_path / "text" / "deeper" / "b")
    assert holds_dicom(tmp_path / "text")
    assert holds_dicom(folder)
