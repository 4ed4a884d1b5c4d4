"""File endings: which format, which case, which output."""

from __future__ import annotations

import re

import pytest

from lora_ext.images.image_file import case_name, check_output_ending, ending


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
    for wrong in (".nii", "nrrd", ".dcm", ""):
        words = re.escape(f"output_ext: found {wrong!r}; allowed are .nii.gz, .nrrd, .mha")
        with pytest.raises(ValueError, match=words):
            check_output_ending(wrong)
