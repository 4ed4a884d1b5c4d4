"""Two images' grids compared, and what a library says made into one sentence."""

from __future__ import annotations

import numpy as np
import pytest

from lora_ext.images.image_file import ImageFile, check_same_grid, damaged


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
        r"^b\.mha: found the shape \(4, 5, 7\) at 1x1x1\.25 mm; "
        r"allowed is that of a\.nrrd, \(4, 5, 6\) at 1x1x3 mm$"
    )
    with pytest.raises(ValueError, match=words):
        check_same_grid(image("a.nrrd"), other)


def test_another_affine_names_both_files_and_both_grids():
    check_same_grid(image("a"), image("b", shift=0.0009))
    words = r"^b: found the affine \[\[1\.0, 0\.0, 0\.0, 0\.002\].*; allowed is that of a, \[\[1"
    with pytest.raises(ValueError, match=words):
        check_same_grid(image("a"), image("b", shift=0.002))


def test_what_itk_says_is_cut_down_to_its_reason():
    said = RuntimeError(
        "/work/ITK/itkMetaImageIO.cxx:490:\nITK ERROR: MetaImageIO(0x5612d02f6ba0): File cannot be"
        " read: a.mha for reading.\nReason: No such file or directory"
    )
    assert str(damaged("x/a.mha", said)) == (
        "x/a.mha: found a damaged or truncated file (File cannot be read: a.mha for reading.); "
        "allowed are whole files"
    )
