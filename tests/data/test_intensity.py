import pytest
import torch
from monai.transforms import NormalizeIntensityd

from lora_ext.data import NormalizeVolumed


def normalise(volume, kind="auto"):
    return NormalizeVolumed("image", kind)({"image": volume})["image"]


@pytest.fixture
def mr():
    torch.manual_seed(0)
    volume = torch.rand(1, 20, 20, 20) * 100 + 50
    volume[:, :8] = 0
    return volume


@pytest.fixture
def ct():
    torch.manual_seed(0)
    volume = torch.randn(1, 20, 20, 20) * 100
    volume[:, :8] = -1024
    volume[:, 9] = 3000  # metal
    return volume


def test_mr_background_stays_zero_and_the_rest_is_standardised(mr):
    result = normalise(mr)
    assert torch.equal(result == 0, mr == 0)
    inside = result[mr != 0]
    assert inside.mean().item() == pytest.approx(0, abs=1e-5)
    assert inside.std().item() == pytest.approx(1, abs=1e-3)


def test_mr_scale_does_not_matter(mr):
    assert torch.allclose(normalise(mr), normalise(1000 * mr), atol=1e-3)


def test_one_bright_vessel_does_not_darken_the_rest_of_an_mr(mr):
    plain, vessel = normalise(mr), mr.clone()
    vessel[0, 10, 10, 10] = 1e5
    assert (normalise(vessel) - plain).abs()[0, 11:].max() < 0.05


def test_mr_agrees_with_the_segmentation_bundles_where_nothing_is_clipped():
    volume = torch.cat([torch.zeros(1, 4, 10, 10), torch.full((1, 4, 10, 10), 7.0)], dim=1)
    volume[:, 4:6] = 3.0
    theirs = NormalizeIntensityd("image", nonzero=True)({"image": volume})["image"]
    assert torch.allclose(normalise(volume), theirs)


def test_ct_is_known_by_air_and_clipped_to_its_window(ct):
    result = normalise(ct)
    assert result.mean().item() == pytest.approx(0, abs=1e-5)
    assert result[:, 9].unique().numel() == 1
    assert torch.equal(result, normalise(ct.clamp(-1000, 1000)))
    assert (result != 0).all()  # air is no background here


def test_kind_can_be_told(mr, ct):
    assert torch.equal(normalise(mr, "mr"), normalise(mr))
    assert torch.equal(normalise(ct, "ct"), normalise(ct))
    assert not torch.allclose(normalise(ct, "mr"), normalise(ct))


def test_empty_volume_stays_empty():
    empty = torch.zeros(1, 4, 4, 4)
    assert torch.equal(normalise(empty), empty)


def test_input_is_not_changed(mr):
    before = mr.clone()
    normalise(mr)
    assert torch.equal(mr, before)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="found 'pet'; allowed are auto, mr, ct"):
        NormalizeVolumed("image", "pet")
