import pytest
import torch

from lora_ext.pretraining.loss import (
    MaskedPatchLoss,
    mean_only_loss,
    normalised_patches,
    to_patches,
)


def test_loss_against_a_computation_by_hand(volumes):
    prediction = torch.randn(2, 4, 4096)
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 0]])
    errors = []
    for case in range(2):
        for patch in range(4):
            voxels = to_patches(volumes)[case, patch].double()
            target = (voxels - voxels.mean()) / (voxels.var() + 1e-6).sqrt()
            if mask[case, patch]:
                errors.append(((prediction[case, patch].double() - target) ** 2).mean())
    loss = MaskedPatchLoss()((prediction, mask), volumes)
    assert loss.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


def test_visible_patches_cost_nothing(volumes):
    mask = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 1]])
    prediction = normalised_patches(volumes)
    prediction[:, 0] = 99
    assert MaskedPatchLoss()((prediction, mask), volumes).item() == pytest.approx(0, abs=1e-10)


def test_predicting_the_mean_costs_the_share_of_patches_with_detail(volumes):
    everything = torch.ones(2, 4)  # one of eight patches is air
    assert mean_only_loss(volumes, everything).item() == pytest.approx(7 / 8, abs=1e-3)
    zero = torch.zeros(2, 4, 4096)
    assert MaskedPatchLoss()((zero, everything), volumes) == mean_only_loss(volumes, everything)


def test_brightness_and_contrast_of_a_volume_do_not_change_the_target(volumes):
    again = normalised_patches(3 * volumes[1:] + 7)
    assert torch.allclose(again, normalised_patches(volumes[1:]), atol=1e-3)
