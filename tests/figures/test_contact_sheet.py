"""The contact sheet: slices the right way up and in proportion, labels outlined where they are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lora_ext.figures.contact_sheet import TILE, case_strip, strip_png, write_contact_sheet

ORANGE = (230, 159, 0)
RAS = np.diag([1.0, 1.0, 2.0, 1.0])


def volume():
    """A bright head in (60, 80, 30) voxels of 1 x 1 x 2 mm, a label at the right front top."""
    image = np.zeros((60, 80, 30), np.float32)
    image[5:55, 5:75, 2:28] = 100
    label = np.zeros(image.shape, np.uint8)
    label[45:50, 55:65, 20:24] = 1
    return image, label


def outline(strip):
    """Rows and columns of the outline, as shares of the axial tile's."""
    rows, columns = np.nonzero((strip == ORANGE).all(axis=-1))
    return rows, columns


def test_the_label_is_at_the_patients_side_of_the_picture():
    image, label = volume()
    rows, columns = outline(case_strip(image, label, RAS))
    width = round(54 * TILE / 74)  # head with its margin, the longest side is 74 mm
    axial = columns < width
    assert axial.any()
    # RAS voxels: the label at high x is on the patient's right, so on the left of the picture,
    # and at high y in front, so at the top.
    assert columns[axial].max() < width / 2
    assert rows[axial].max() < TILE / 2


def test_a_flip_of_the_image_moves_the_outline_to_the_other_side():
    image, label = volume()
    one = case_strip(image, label, RAS)
    other = case_strip(image, label[::-1], RAS)
    assert abs(outline(one)[1].min() - outline(other)[1].min()) > 20


def test_the_order_of_axes_in_the_file_does_not_change_the_picture():
    image, label = volume()
    turned = np.array([[0, 0, 1.0, 0], [-1, 0, 0, 59], [0, 2.0, 0, 0], [0, 0, 0, 1]])
    turned = RAS @ np.array([[0, 0, -1.0, 59], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    # axes: first along y, second along z, third against x
    same = [v.transpose(1, 2, 0)[:, :, ::-1] for v in (image, label)]
    assert (case_strip(*same, turned) == case_strip(image, label, RAS)).all()


def test_a_case_without_a_label_has_a_picture_without_an_outline():
    strip = case_strip(volume()[0], None, RAS)
    assert strip.dtype == np.uint8
    assert not len(outline(strip)[0])


def test_the_sheet_is_a_picture_of_all_cases(tmp_path):
    strip = case_strip(*volume(), RAS)
    assert (np.asarray(Image.open(io.BytesIO(strip_png(strip))))[..., :3] == strip).all()
    assert write_contact_sheet(tmp_path / "sheet.png", {f"c{i}": strip for i in range(6)}) == 6
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    orange = (abs(pixels - ORANGE).sum(axis=-1) < 60).any(axis=0)
    assert np.count_nonzero(np.diff(orange.astype(int)) == 1) >= 4  # in each of four columns


@pytest.mark.parametrize("shape", [(1, 20, 20), (20, 20, 1)])
def test_a_single_slice_has_a_picture(shape):
    assert case_strip(np.ones(shape, np.float32), np.ones(shape, np.uint8), RAS).shape[2] == 3
