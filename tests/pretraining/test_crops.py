"""Crops that hold enough of the body, counted."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandSpatialCropd

from lora_ext.data import NormalizeModalitiesd
from lora_ext.pretraining import RandContentCropd
from lora_ext.pretraining.crops import content

SIZE, ROI = (64, 64, 48), (32, 32, 16)
AIR = {"mr": 0.0, "noisy mr": 8.0, "ct": -1000.0, "pet": 0.05}


def body():
    """A ball that fills a seventh of the volume."""
    grid = np.indices(SIZE) - np.array(SIZE)[:, None, None, None] / 2
    return torch.from_numpy((grid**2).sum(0) < 19**2)


def volume(kind, seed=0):
    """A body of about 100 (CT: HU; PET: 5), its air as a scanner makes it; normalised."""
    rng = np.random.default_rng(seed)
    inside = rng.normal(5, 1, SIZE) if kind == "pet" else rng.normal(100, 20, SIZE)
    spread = 0 if kind == "mr" else {"noisy mr": 4, "ct": 10, "pet": 0.01}[kind]
    air = np.abs(rng.normal(AIR[kind], spread, SIZE)) * (-1 if kind == "ct" else 1)
    voxels = torch.from_numpy(np.where(body().numpy(), inside, air)[None].astype(np.float32))
    normalise = NormalizeModalitiesd("image", kind.split()[-1])
    return normalise({"image": MetaTensor(voxels, affine=np.diag([2.0, 2, 2, 1]))})["image"]


@pytest.mark.parametrize("kind", AIR)
def test_content_is_the_body_in_every_modality(kind):
    found = content(volume(kind))[0]
    assert (found == body()).float().mean() > 0.99


@pytest.mark.parametrize("kind", AIR)
def test_crops_hold_the_body_where_crops_at_random_hold_air(kind):
    item = {"image": volume(kind), "case": "a"}
    crop = RandContentCropd("image", ROI, num_samples=50).set_random_state(0)
    at_random = RandSpatialCropd("image", ROI, random_size=False).set_random_state(0)
    inside = body()

    def share(image):  # of the body in a crop, by the crop's own affine
        first = [int(n) for n in (image.affine[:3, 3] / 2).round()]
        place = tuple(slice(n, n + side) for n, side in zip(first, ROI, strict=True))
        return float(inside[place].float().mean())

    ours = [share(one["image"]) for one in crop(item)]
    theirs = [share(at_random(item)["image"]) for _ in range(50)]
    assert np.mean(theirs) < 0.45
    assert sum(one < 0.45 for one in theirs) > 20
    assert sum(one < 0.45 for one in ours) <= 5
    assert len({round(one, 4) for one in ours}) > 20  # and not all the same


def test_fullest_of_the_draws_is_kept_where_none_is_half_full():
    voxels = torch.zeros(1, 48, 16, 16)
    voxels[0, 20:23] = 1.0
    crop = RandContentCropd("image", (16, 16, 16), num_samples=20).set_random_state(0)
    shares = [float(one["image"].mean()) for one in crop({"image": voxels})]
    assert max(shares) == pytest.approx(3 / 16)
    assert sum(share > 0 for share in shares) >= 18


def test_same_seed_same_crops_and_the_rest_of_the_item_stays():
    item = {"image": volume("mr"), "case": "a"}
    once, again = (
        RandContentCropd("image", ROI, num_samples=2).set_random_state(3)(item) for _ in range(2)
    )
    assert [one["case"] for one in once] == ["a", "a"]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(once, again, strict=True))
    assert item["image"].shape[1:] == SIZE


def test_whole_volume_of_a_crops_size_is_taken():
    image = volume("mr")[:, :32, :32, :16]
    (one,) = RandContentCropd("image", ROI)({"image": image})
    assert torch.equal(one["image"], image)


def test_blank_volume_is_cropped_all_the_same():
    (one,) = RandContentCropd("image", ROI)({"image": torch.zeros(1, *SIZE)})
    assert one["image"].shape == (1, *ROI)
