"""Patches, the loss against a computation by hand, and volumes rebuilt from patches."""

import pytest
import torch

from lora_ext.networks.encoder import ChannelEncoder
from lora_ext.pretraining.loss import (
    MaskedPatchLoss,
    from_patches,
    mean_only_loss,
    normalised_patches,
    patch_statistics,
    reconstruct,
    to_patches,
)


def test_patches_go_back_to_the_same_volume(volumes):
    assert torch.equal(from_patches(to_patches(volumes), (32, 32, 16)), volumes)


def test_patches_are_in_the_order_of_the_encoders_tokens():
    encoder = ChannelEncoder(["c"], (32, 48, 16), hidden_size=8, num_layers=1, num_heads=1)
    embedding = encoder.patch_embedding
    torch.nn.init.zeros_(embedding.position_embeddings)
    volume = torch.randn(1, 1, 32, 48, 16)
    kernel = embedding.patch_embeddings
    by_hand = to_patches(volume) @ kernel.weight.flatten(1).T + kernel.bias
    assert torch.allclose(by_hand, embedding(volume), atol=1e-4)


def test_statistics_are_each_patchs_own(volumes):
    mean, deviation = patch_statistics(to_patches(volumes))
    assert mean.shape == deviation.shape == (2, 4, 1)
    corner = volumes[1, 0, 16:, 16:]
    assert mean[1, 3, 0] == pytest.approx(corner.mean().item(), abs=1e-6)
    assert deviation[1, 3, 0] == pytest.approx(corner.std().item(), rel=1e-4)
    assert deviation[0, 0, 0] == pytest.approx(1e-3, rel=1e-3)  # air: not zero, so it can divide


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


def test_perfect_prediction_gives_the_input_and_visible_patches_stay(volumes):
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1]])
    parts = reconstruct(volumes, normalised_patches(volumes), mask)
    assert torch.allclose(parts["reconstruction"], volumes, atol=1e-4)
    wrong = reconstruct(volumes, torch.randn(2, 4, 4096), mask)
    visible = wrong["hidden"] == 0
    assert visible.sum() == 2 * 4096
    assert torch.equal(wrong["reconstruction"][visible], volumes[visible])


def test_prediction_of_nothing_gives_the_patch_means(volumes):
    mask = torch.ones(2, 4)
    parts = reconstruct(volumes, torch.zeros(2, 4, 4096), mask)
    assert torch.allclose(parts["reconstruction"], parts["means"])
    corner = parts["means"][1, 0, 16:, 16:]
    assert torch.allclose(corner, volumes[1, 0, 16:, 16:].mean().expand_as(corner), atol=1e-5)
