"""File endings, grids compared, and what a library says made into one sentence."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lora_ext.images.image_file import (
    ImageFile,
    case_name,
    check_output_ending,
    check_same_grid,
    damaged,
    ending,
)


@pytest.mark.parametrize(
    ("path", "known", "case"),
    [
        ("a/B_1.nii.gz", ".nii.gz", "B_1"),
        ("x.y.nii", ".nii", "x.y"),
        ("B.NII.GZ", ".nii.gz", "B"),
        ("a.nii.mha", ".mha", "a.nii"),
        ("c.mhd", ".mhd", "c"),
        ("d.seg.nrrd", ".nrrd", "d.seg"),
        ("e.NHDR", ".nhdr", "e"),
        ("f.raw", "", "f.raw"),
        ("pat.1/FLAIR", "", "FLAIR"),
    ],
)
def test_the_last_ending_tells_the_format_and_the_rest_names_the_case(path, known, case):
    assert ending(path) == known
    assert case_name(path) == case


def test_segmentations_are_written_in_one_of_three_formats():
    assert [check_output_ending(e) for e in (".nii.gz", ".nrrd", ".mha")] == [
        ".nii.gz",
        ".nrrd",
        ".mha",
    ]
    for wrong in (".nii", "nrrd", ".png", ""):
        words = re.escape(
            f"output_ext: expected one of .nii.gz, .nrrd, .mha, .seg.nrrd, .dcm, got {wrong!r}"
        )
        with pytest.raises(ValueError, match=words):
            check_output_ending(wrong)


def image(name, shape=(4, 5, 6), affine=None, shift=0.0):
    affine = np.diag([1.0, 1.0, 3.0, 1.0]) if affine is None else affine
    return ImageFile(name, shape, affine + shift * np.eye(4, k=3), lambda: np.zeros(shape))


def test_a_fourth_axis_holds_the_channels_and_does_not_matter_for_the_grid():
    assert [image("a", s).num_channels for s in ((4, 5, 6), (4, 5, 6, 1), (4, 5, 6, 3))] == [
        1,
        1,
        3,
    ]
    check_same_grid(image("a", (4, 5, 6)), image("b", (4, 5, 6, 3)))


def test_another_shape_names_both_files_and_both_grids():
    other = image("b.mha", (4, 5, 7), np.diag([1.0, 1.0, 1.25, 1.0]))
    words = (
        r"^b\.mha: expected the shape of a\.nrrd, \(4, 5, 6\) at 1x1x3 mm, "
        r"got \(4, 5, 7\) at 1x1x1\.25 mm$"
    )
    with pytest.raises(ValueError, match=words):
        check_same_grid(image("a.nrrd"), other)


@pytest.mark.parametrize(
    ("change", "voxels", "mm"),
    [
        ({(0, 3): 0.002}, 0.002, 0.002),
        ({(2, 3): 0.2}, 0.2 / 3, 0.2),
        ({(0, 3): 0.11}, 0.11, 0.11),
        ({(0, 0): 1.2}, 0.6, 0.6),
        ({(0, 1): 0.115}, 0.46, 0.46),
        ({(2, 3): 0.6}, 0.2, 0.6),
        ({(0, 0): -1.0}, 6, 6),
    ],
)
def test_grids_are_compared_where_their_corner_voxels_lie(change, voxels, mm):
    """By hand: a step of one along each of three axes; a shift counts whole, a slope at the end."""
    moved = image("b")
    for place, value in change.items():
        moved.affine[place] = value
    if voxels <= 0.1:
        return check_same_grid(image("a"), moved)
    words = (
        rf"^b: expected the affine of a, .* corner {voxels:.4g} voxels \({mm:.4g} mm\) elsewhere"
    )
    with pytest.raises(ValueError, match=words):
        check_same_grid(image("a"), moved)


def test_what_itk_says_is_cut_down_to_its_reason():
    said = RuntimeError(
        "/data/ITK/itkMetaImageIO.cxx:490:\nITK ERROR: MetaImageIO(0x5612d02f6ba0): File cannot be"
        " read: a.mha for reading.\nReason: No such file or directory"
    )
    reason = "File cannot be read: a.mha for reading."
    assert str(damaged("x/a.mha", said)) == (
        f"x/a.mha: expected a whole file, got a damaged or truncated one ({reason})"
    )
