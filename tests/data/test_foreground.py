import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import CropForegroundd

from lora_ext.data import is_foreground


def crop(image):
    return CropForegroundd(
        "image", "image", select_fn=is_foreground, start_coord_key=None, end_coord_key=None
    )({"image": MetaTensor(image)})["image"]


def test_box_holds_every_voxel_that_any_channel_has_a_signal_in():
    image = torch.zeros(2, 10, 9, 8)
    image[0, 2, 3, 4] = 5.0
    image[1, 6, 3, 1] = -5.0
    assert crop(image).shape == (2, 5, 1, 4)


def test_affine_follows_the_box():
    image = torch.zeros(1, 6, 6, 6)
    image[0, 2:4, 3:5, 1:3] = 1.0
    np.testing.assert_array_equal(crop(image).affine[:3, 3], [2.0, 3.0, 1.0])


@pytest.mark.parametrize("value", [0.0, -1000.0])
def test_image_without_a_zero_background_keeps_its_size(value):
    image = torch.full((1, 6, 5, 4), value)
    assert crop(image).shape == image.shape
