"""Any header: an image is read as nibabel and ITK read it, or one sentence names the file."""

import gzip
import itertools
import os

import itk
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.transforms import LoadImage
from scipy.spatial.transform import Rotation

from lora_ext.images import VolumeReader, segmentation_writer
from lora_ext.images.reader import open_image

EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NUMBERS = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
SHAPES = st.tuples(*[st.integers(2, 9)] * 3)
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@st.composite
def affines(draw, shear=0.0):
    """From voxels to mm: any rotation, flip, order of axes, spacing and place."""
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True)
    spacing = np.array(draw(st.tuples(*[st.floats(0.05, 20)] * 3)))
    flips = np.diag(draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)))
    skew = np.eye(3)
    skew[0, 1] = draw(st.floats(-shear, shear))
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() @ skew @ flips @ np.diag(spacing)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


@st.composite
def volumes(draw, kinds=NUMBERS):
    kind = np.dtype(draw(st.sampled_from(kinds)))
    if kind.kind == "f":
        elements = st.floats(-1e6, 1e6, width=32)
    else:
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        elements = st.integers(max(low, -(2**31)), min(high, 2**31))
    return draw(hnp.arrays(kind, draw(SHAPES), elements=elements))


def close(found, expected, affine):
    """Within a thousandth of a voxel, as float32 headers allow, at every corner."""
    corners = [(*c, 1) for c in itertools.product(*((0, n - 1) for n in expected[0]))]
    moved = (np.asarray(corners) @ (found - expected[1]).T)[:, :3]
    finest = np.linalg.norm(affine[:3, :3], axis=0).min()
    return np.abs(moved).max() < 1e-3 * finest + 1e-3


@EXAMPLES
@given(
    voxels=volumes(),
    affine=affines(shear=0.5),
    scale=st.sampled_from([None, (2.0, 0.0), (0.37, -12.5), (1e-3, 1.0)]),
    unit=st.sampled_from([("mm", 1.0), ("meter", 1e-3), ("micron", 1e3), ("unknown", 1.0)]),
    packed=st.booleans(),
    ending=st.sampled_from([".nii", ".nii.gz"]),
)
def test_nifti_is_read_as_nibabel_reads_it(tmp_path, voxels, affine, scale, unit, packed, ending):
    image = nib.Nifti1Image(voxels, np.eye(4), dtype=voxels.dtype)
    image.header.set_xyzt_units(unit[0])
    image.header.set_sform(np.diag([*[unit[1]] * 3, 1]) @ affine, code=1)
    if scale is not None:
        image.header.set_slope_inter(*scale)
    image = nib.Nifti1Image(voxels, None, image.header)
    image.header.set_data_dtype(voxels.dtype)
    path = tmp_path / f"image{ending}"
    nib.save(image, path)
    oracle = nib.load(path)
    opened = open_image(str(path))
    assert close(opened.affine, (voxels.shape, affine), affine)
    found, expected = opened.read(), oracle.get_fdata()
    assert found.shape == expected.shape
    whole = np.abs(expected - np.round(expected)).max() <= 1e-3  # a label map behind a factor
    tolerance = 1e-3 if whole else 1e-6 * max(1, np.abs(expected).max())
    assert np.abs(found.astype(float) - expected).max() <= tolerance


@EXAMPLES
@given(voxels=volumes(("u1", "i2", "u2", "i4", "f4", "f8")), affine=affines(),
       ending=st.sampled_from([".nrrd", ".mha", ".nii.gz"]))  # fmt: skip
def test_all_formats_that_itk_writes_hold_the_same_image(tmp_path, voxels, affine, ending):
    image = itk.image_from_array(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    lps = TO_LPS @ affine
    direction = lps[:3, :3] / spacing
    assume(np.linalg.det(direction) > 0 or ending != ".nii.gz")  # ITK's qform is a rotation
    image.SetSpacing([float(s) for s in spacing])
    image.SetDirection(itk.matrix_from_array(direction))
    image.SetOrigin([float(x) for x in lps[:3, 3]])
    path = str(tmp_path / f"image{ending}")
    itk.imwrite(image, path)
    opened = open_image(path)
    assert close(opened.affine, (voxels.shape, affine), affine)
    assert np.allclose(opened.read(), voxels, rtol=1e-6, atol=1e-3)


@EXAMPLES
@given(labels=hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 200)), affine=affines(),
       ending=st.sampled_from([".nii.gz", ".nrrd", ".mha"]))  # fmt: skip
def test_segmentation_comes_back_in_its_place(tmp_path, labels, affine, ending):
    path = str(tmp_path / f"labels{ending}")
    writer = segmentation_writer(ending)(output_dtype=np.uint8)
    writer.set_data_array(labels[None], channel_dim=0)
    writer.set_metadata({"affine": affine, "original_affine": affine}, resample=False)
    writer.write(path)
    back = LoadImage(VolumeReader(), image_only=True, dtype=np.uint8)(path)
    assert np.array_equal(np.asarray(back), labels)
    assert close(np.asarray(back.affine), (labels.shape, affine), affine)


def whole_image(folder, ending):
    path = folder / f"whole{ending}"
    voxels = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    if ending.startswith(".nii"):
        nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 1.0, 3.0, 1.0])), path)
    else:
        itk.imwrite(itk.image_from_array(voxels.transpose(2, 1, 0).copy()), str(path))
    return path.read_bytes()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@settings(EXAMPLES, max_examples=150)
@given(data=st.data())
def test_any_damage_ends_in_one_sentence_or_in_an_image(tmp_path, ending, data):
    """Bytes changed, cut or put in: nothing but our own sentence, and never an impossible image."""
    content = bytearray(whole_image(tmp_path, ending))
    if ending == ".nii.gz":  # behind the compression, whose checksum finds everything else
        content = bytearray(gzip.decompress(bytes(content)))
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=8)
    ):
        content[min(place, len(content) - 1)] = byte
    content = content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))]
    path = tmp_path / f"image{ending}"
    path.write_bytes(gzip.compress(bytes(content)) if ending == ".nii.gz" else bytes(content))
    try:
        opened = open_image(str(path))
        voxels = opened.read()
    except ValueError as error:
        text = str(error)
        assert str(path) in text or os.path.basename(path) in text
        assert "\n" not in text
        return
    assert voxels.shape == opened.shape
    assert np.isfinite(opened.affine).all()
    assert abs(np.linalg.det(opened.affine[:3, :3])) > 0
