"""What values mean: kinds by name and by value, one scale per modality, the box of the body."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import CropForegroundd, NormalizeIntensityd

from lora_ext.data.intensity import (
    Foreground,
    NormalizeModalitiesd,
    channel_kinds,
    kind_of,
    recorded_kinds,
    volume_kind,
)

NAMES = ["PET", "T1w", "CT"]
WINDOWS = {"ct_window": [-160, 240], "pet_window": [0, 10]}


@pytest.fixture
def image():
    """PET in SUV, T1w with a background of 0, CT with air, fat, water and metal; (3, 8, 8, 8)."""
    torch.manual_seed(0)
    pet, t1, ct = torch.rand(3, 8, 8, 8)
    t1 = 100 * t1 + 50
    t1[:, :3] = 0
    ct = 400 * ct - 200
    ct[0], ct[1], ct[2, 0] = -1000, 0, 3000
    pet[:, 0] = 0
    pet[4, 4, 4] = 40
    return MetaTensor(torch.stack([pet, t1, ct]))


def normalise(image, intensity="auto", modalities=NAMES, **more):
    transform = NormalizeModalitiesd("image", intensity, modalities, **{**WINDOWS, **more})
    return transform({"image": image})["image"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CT", "ct"), ("ct1", "ct"), ("CT_venous", "ct"), ("CBCT", "ct"), ("PT", "pet"),
        ("FDG-PET", "pet"), ("SUV", "pet"), ("T1w", "mr"), ("t1ce", "mr"), ("FLAIR", "mr"),
        ("ADC", "mr"), ("T2 FAST", "mr"), ("channel 0", "mr"),
    ],
)  # fmt: skip
def test_kind_goes_by_the_words_of_a_name(name, kind):
    assert kind_of(name) == kind
    assert channel_kinds([name], "auto") == {name: kind}


def test_kinds_may_be_told_by_name_in_any_case_and_order():
    told = {"pet": "mr", "t1W": "auto", "CT": "ct", "more": "pet"}
    assert list(channel_kinds(NAMES, told).items()) == [("PET", "mr"), ("T1w", "mr"), ("CT", "ct")]
    assert set(channel_kinds(NAMES, "pet").values()) == {"pet"}


@pytest.mark.parametrize(
    ("names", "intensity", "message"),
    [
        (["CT"], "water", "one of auto, mr, ct, pet for the channel CT, got water"),
        (["CT", "T1w"], {"CT": "ct"}, "for the channel T1w, got none"),
        (["PET-CT"], "auto", "channel 'PET-CT': expected a name of CT or of PET, got one of both"),
    ],
)
def test_channel_without_a_kind_is_refused(names, intensity, message):
    with pytest.raises(ValueError, match=message):
        channel_kinds(names, intensity)


def test_ct_that_counts_as_mr_is_warned_of(caplog):
    assert recorded_kinds(NAMES, "auto") == channel_kinds(NAMES, "auto")
    assert not caplog.messages
    assert recorded_kinds(["CT", "T1w"], "mr") == {"CT": "mr", "T1w": "mr"}
    assert "channel CT is normalised as MR" in caplog.text
    assert "T1w" not in caplog.text


def test_values_decide_only_where_there_is_no_name():
    air, head = torch.tensor([-500.0, 3.0]), torch.tensor([-499.0, 3.0])
    assert (volume_kind(air, "auto"), volume_kind(head, "auto")) == ("ct", "mr")
    assert volume_kind(air, "auto", "T1w") == "mr"
    assert volume_kind(head, "auto", "CT") == "ct"
    assert volume_kind(air, "pet") == "pet"
    assert volume_kind(air, {"x": "pet"}, "X") == "pet"
    assert volume_kind(air, {"x": "pet"}) == "ct"


def test_mr_is_exactly_what_monai_makes_of_nonzero_voxels(image):
    theirs = NormalizeIntensityd("image", nonzero=True, channel_wise=True)(
        {"image": image.clone()}  # MONAI writes into what it is given
    )
    assert torch.equal(normalise(image, "mr"), theirs["image"])
    assert torch.equal(normalise(image)[1], theirs["image"][1])


def test_ct_is_the_same_for_every_patient_and_water_is_tissue(image):
    ct = normalise(image)[2]
    expected = (np.clip(image[2].numpy(), -160, 240) - 40) / (400 / np.sqrt(12))
    np.testing.assert_allclose(ct, expected, atol=1e-6)
    assert ct[1].unique().numel() == 1  # water, which the rule of MR would leave at 0
    assert ct[1, 0, 0] == pytest.approx(-40 / 115.47, abs=1e-4)
    alone = normalise(MetaTensor(torch.zeros(1, 4, 4, 4)), "ct", ["CT"])
    assert torch.allclose(alone, ct[1, 0, 0])


def test_even_spread_over_a_window_has_zero_mean_and_unit_variance():
    even = MetaTensor(torch.linspace(-160, 240, 1000).reshape(1, 10, 10, 10))
    result = normalise(even, "ct", ["CT"])
    assert result.mean().item() == pytest.approx(0, abs=1e-5)
    assert result.std().item() == pytest.approx(1, abs=1e-2)


def test_pet_keeps_its_zeros_and_its_unit(image):
    pet = normalise(image)[0]
    assert torch.equal(pet == 0, image[0] == 0)
    assert pet[4, 4, 4] == pytest.approx(np.sqrt(12), abs=1e-5)  # clipped to 10
    assert torch.allclose(pet, normalise(100 * image, pet_window=[0, 1000])[0], atol=1e-6)


def test_pet_in_another_unit_than_its_window_is_refused(image):
    with pytest.raises(ValueError, match=r"expected PET within pet_window, 0 to 10.*up to 4000;"):
        normalise(100 * image)


def test_volume_of_a_named_channel_meets_the_scale_of_the_segmentation(image):
    whole, volumes = normalise(image), NormalizeModalitiesd("image", "auto", **WINDOWS)
    for row, name in enumerate(NAMES):
        item = volumes({"image": image[row : row + 1], "modality": name})
        assert item.keys() == {"image"}
        assert torch.equal(item["image"][0], whole[row])
    unnamed = volumes({"image": image[2:]})["image"]
    assert torch.equal(unnamed[0], whole[2])  # by its air


def test_input_is_not_changed_and_meta_data_stay(image):
    before = image.clone()
    image.meta["filename_or_obj"] = "a.nii.gz"
    result = normalise(image)
    assert torch.equal(image, before)
    assert result.meta["filename_or_obj"] == "a.nii.gz"
    assert result.dtype == torch.float32


def test_empty_mr_stays_empty():
    empty = MetaTensor(torch.zeros(1, 4, 4, 4))
    assert torch.equal(normalise(empty, "mr", ["T1w"]), empty)


def test_other_number_of_channels_is_refused(image):
    with pytest.raises(ValueError, match="expected 3 channels, got 2"):
        normalise(image[:2])


def test_both_are_picklable(image):
    transform = pickle.loads(pickle.dumps(NormalizeModalitiesd("image", "auto", NAMES, **WINDOWS)))
    assert torch.equal(transform({"image": image})["image"], normalise(image))
    inside = pickle.loads(pickle.dumps(Foreground(NAMES, "auto")))
    assert torch.equal(inside(image), Foreground(NAMES, "auto")(image))


def crop(image, names=("a", "b"), intensity="mr"):
    inside = Foreground(names[: len(image)], intensity)
    return CropForegroundd(
        "image", "image", select_fn=inside, start_coord_key=None, end_coord_key=None
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


def test_air_and_padding_are_outside_of_ct_and_water_is_inside():
    image = torch.full((1, 10, 9, 8), -1000.0)
    image[0, :, :, 7] = -3024  # padding
    image[0, 2:5, 3:6, 1:4] = 0
    assert crop(image, ["CT"], "auto").shape == (1, 3, 3, 3)
    both = torch.cat([image, torch.zeros_like(image)])
    both[1, 8, 8, 6] = 7
    assert crop(both, ["CT", "T1w"], "auto").shape == (2, 7, 6, 6)


def test_no_value_of_pet_is_outside():
    image = torch.zeros(2, 6, 6, 6)
    image[0] = -1000
    image[0, 2, 2, 2] = 0
    assert crop(image, ["CT", "PET"], "auto").shape == image.shape
