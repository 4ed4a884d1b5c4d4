"""What headers claim: places, lengths, sizes and ranges, as other programs write them."""

from __future__ import annotations

import itk
import nibabel as nib
import numpy as np
import pytest

from lora_ext.images.limits import available_memory, check_resampled, readable_voxels
from lora_ext.images.reader import open_image

ZEROS = np.zeros((7, 6, 5), np.int16)


@pytest.fixture
def header(tmp_path):
    """A function that writes a NIfTI, its header changed by assignments, and opens it."""

    def run(shape=None, name="a.nii", **fields):
        image = nib.Nifti1Image(ZEROS, np.diag([1.0, 1.0, 3.0, 1.0]))
        nib.save(image, tmp_path / name)
        raw = nib.load(tmp_path / name).header
        raw["vox_offset"] = 352  # nibabel forgets it
        for key, value in fields.items():
            raw[key] = value
        if shape:
            raw["dim"][: len(shape) + 1] = (len(shape), *shape)
        content = (tmp_path / "a.nii").read_bytes()
        (tmp_path / "a.nii").write_bytes(raw.binaryblock + content[348:])
        return open_image(str(tmp_path / name))

    return run


ROWS = {"srow_x": [1, 0, 0, 0], "srow_y": [0, 1, 0, 0], "srow_z": [0, 0, 1, 0]}


NO_ROWS = {"srow_x": [0, 0, 0, 0], "srow_y": [0, 0, 0, 0], "srow_z": [0, 0, 0, 0]}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (NO_ROWS, "has no inverse"),
        ({"srow_z": [0, 0, 0, 0]}, "has no inverse"),
        ({"srow_y": ROWS["srow_x"]}, "has no inverse"),
        ({"srow_x": [np.nan, 0, 0, 0]}, r"expected a finite affine, got \[\[nan"),
        ({"srow_z": [0, 0, 1, np.inf]}, "expected a finite affine"),
        ({"sform_code": 0, "qform_code": 0}, "does not tell left from right"),
        ({"xyzt_units": 1}, "got 1000x1000x3000 mm"),
        ({"xyzt_units": 3}, r"got 0\.001x0\.001x0\.003 mm"),
        ({"srow_x": [0.001, 0, 0, 0]}, r"got 0\.001x1x3 mm"),
        ({"srow_z": [0, 0, 500, 0]}, "got 1x1x500 mm"),
        ({"shape": (30000, 30000, 30000)}, "claims 27000000000000 voxels"),
        ({"shape": (1, 1, 9)}, r"expected a volume, got the shape \(1, 1, 9\)"),
        ({"shape": (7, 6)}, r"expected 3 dimensions, or 4 .*, got the shape \(7, 6\)"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused_before_voxels_are_read(header, fields, words):
    with pytest.raises(ValueError, match=rf"a\.nii: .*{words}"):
        header(**fields)


@pytest.mark.parametrize(("unit", "length"), [("meter", 0.001), ("micron", 1000.0), ("mm", 1.0)])
def test_lengths_are_in_mm_whatever_the_unit(tmp_path, unit, length):
    image = nib.Nifti1Image(ZEROS, np.diag([length, 2 * length, 3 * length, 1]))
    image.header.set_xyzt_units(unit)
    image.set_qform(image.affine, 1)
    nib.save(image, tmp_path / "a.nii")
    theirs = itk.imread(str(tmp_path / "a.nii"))
    found = np.diag(open_image(str(tmp_path / "a.nii")).affine)[:3]
    np.testing.assert_allclose(found, list(theirs.GetSpacing()), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "after", "line"),
    [
        ("a.nhdr", "space:", 'space units: "um" "um" "um"'),
        ("a.mhd", "NDims", "DistanceUnits = um"),
    ],
)
def test_other_formats_lengths_must_be_in_mm(tmp_path, write_image, oblique, name, after, line):
    path = tmp_path / name
    write_image(path, ZEROS, oblique)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines.insert(1 + next(i for i, found in enumerate(lines) if found.startswith(after)), line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name}: expected lengths in mm, got .*um"):
        open_image(str(path))
    path.write_text(path.read_text(encoding="utf-8").replace("um", "mm"), encoding="utf-8")
    np.testing.assert_allclose(open_image(str(path)).affine, oblique, atol=1e-6)


def test_an_image_larger_than_the_memory_is_refused(tmp_path):
    """A sparse file, which holds all the bytes that it claims."""
    side = int((available_memory() / 4) ** (1 / 3)) + 1
    raw = nib.Nifti2Header()
    raw.set_data_dtype(np.uint8)
    raw.set_data_shape((side, side, side))
    raw.set_sform(np.eye(4), 1)
    (tmp_path / "a.nii").write_bytes(raw.binaryblock + bytes(4))
    with open(tmp_path / "a.nii", "r+b") as file:
        file.truncate(544 + side**3)
    with pytest.raises(ValueError, match=r"a\.nii: expected an image that fits into memory, .* GB"):
        open_image(str(tmp_path / "a.nii"))


def test_only_a_grid_that_grows_beyond_the_memory_is_refused():
    check_resampled("a", (512, 512, 300), (0.7, 0.7, 1.0), (1.0, 1.0, 1.0), 2)
    with pytest.raises(ValueError, match=r"a: .* got 512x512x300 voxels .* --spacing"):
        check_resampled("a", (512, 512, 300), (20.0, 20.0, 20.0), (1.0, 1.0, 1.0), 2)


@pytest.mark.parametrize("value", [1e200, -3.5e38])
def test_a_voxel_beyond_float32_is_refused(tmp_path, value):
    voxels = np.ones((7, 6, 5))
    voxels[1, 2, 3] = value
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=r"a\.nii\.gz: .* got (1e\+200|-3\.5e\+38) in 1 voxel"):
        open_image(str(tmp_path / "a.nii.gz")).read()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_keep_their_values(dtype):
    """Also those of which many are whole, or all are small."""
    random = np.random.default_rng(0)
    whole = random.integers(0, 99, (7, 6, 5)).astype(dtype)
    half = whole.copy()
    half[3, 3, 3] += dtype(0.5)
    for voxels in (whole, half, random.random((7, 6, 5)).astype(dtype), whole * dtype(1e-6)):
        np.testing.assert_array_equal(readable_voxels("a", voxels.copy()), voxels)
    gaps = np.full((7, 6, 5), np.nan, dtype)
    np.testing.assert_array_equal(readable_voxels("a", gaps), gaps)
