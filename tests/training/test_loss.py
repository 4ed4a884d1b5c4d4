import math

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss

from lora_ext.training import RegionDiceCELoss


def by_hand(logits, regions):
    """Dice over batch and voxels per region, binary cross-entropy per voxel, in plain Python."""
    dice, cross_entropy, voxels = 0.0, 0.0, 0
    for r in range(len(logits[0])):
        overlap = total = 0.0
        for image in range(len(logits)):
            for z, t in zip(logits[image][r], regions[image][r], strict=True):
                p = 1 / (1 + math.exp(-z))
                overlap, total = overlap + p * t, total + p + t
                cross_entropy -= t * math.log(p) + (1 - t) * math.log(1 - p)
                voxels += 1
        dice += 1 - (2 * overlap + 1e-5) / (total + 1e-5)
    return dice / len(logits[0]) + cross_entropy / voxels


def test_loss_equals_a_hand_computation():
    logits = [
        [[0.3, -1.2, 2.0, 0.1], [1.0, 0.0, -3.0, 0.5]],
        [[-0.7, 0.2, 0.9, -2], [3, -1, 0.4, 0]],
    ]
    regions = [[[1, 0, 1, 0], [1, 1, 0, 0]], [[0, 0, 1, 0], [1, 0, 1, 1]]]
    loss = RegionDiceCELoss()(
        torch.tensor(logits).view(2, 2, 1, 2, 2), torch.tensor(regions).view(2, 2, 1, 2, 2)
    )
    assert loss.item() == pytest.approx(by_hand(logits, regions), rel=1e-5)


def test_overlapping_regions_can_all_be_right_at_once():
    truth = torch.ones(1, 3, 2, 2, 2)  # every voxel lies in all three regions
    sure = torch.full_like(truth, 20.0)
    assert RegionDiceCELoss()(sure, truth).item() == pytest.approx(0.0, abs=1e-4)
    # MONAI's DiceCELoss makes the regions compete, so it never gets there
    assert DiceCELoss(sigmoid=True)(sure, truth).item() > 1.0


def test_weights_scale_the_two_terms():
    logits, truth = torch.randn(1, 2, 2, 2, 2), torch.ones(1, 2, 2, 2, 2)
    both = RegionDiceCELoss()(logits, truth)
    dice = RegionDiceCELoss(ce_weight=0.0)(logits, truth)
    cross_entropy = RegionDiceCELoss(dice_weight=0.0)(logits, truth)
    torch.testing.assert_close(both, dice + cross_entropy)


def test_half_precision_logits_give_a_float32_loss():
    logits, truth = torch.randn(1, 2, 2, 2, 2), torch.ones(1, 2, 2, 2, 2)
    half = RegionDiceCELoss()(logits.bfloat16(), truth)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, RegionDiceCELoss()(logits, truth), rtol=1e-2, atol=1e-2)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2, 2, 2, 2\) and \(1, 3, 2, 2, 2\)"):
        RegionDiceCELoss()(torch.zeros(1, 2, 2, 2, 2), torch.zeros(1, 3, 2, 2, 2))


def test_dice_is_monais_over_the_whole_batch():
    logits, truth = torch.randn(3, 2, 4, 4, 4), (torch.rand(3, 2, 4, 4, 4) > 0.7).float()
    monai = DiceLoss(sigmoid=True, batch=True)(logits, truth)
    assert RegionDiceCELoss(ce_weight=0.0)(logits, truth) == monai


TWO = """
import torch
from monai.losses import DiceLoss
from torch import distributed, nn
import ignite.distributed as idist
from lora_ext.training import processes
from lora_ext.training import RegionDiceCELoss

processes.join("cpu")
torch.manual_seed(0)
network = nn.Conv3d(2, 3, 3, dtype=torch.float64)
images = torch.randn(4, 2, 8, 8, 8, dtype=torch.float64)
truth = (torch.rand(4, 3, 6, 6, 6) > torch.tensor([0.1, 0.5, 0.9, 1.0])[:, None, None, None, None])
truth = truth.double()  # images without anything in them are among them

logits = network(images)
whole = DiceLoss(sigmoid=True, batch=True)(logits, truth)
whole = whole + nn.functional.binary_cross_entropy_with_logits(logits, truth)
expected = torch.autograd.grad(whole, network.parameters())

parallel = nn.parallel.DistributedDataParallel(network)
own = slice(idist.get_rank(), None, 2)
loss = RegionDiceCELoss()(parallel(images[own]), truth[own])
loss.backward()
torch.testing.assert_close(loss, whole, rtol=1e-14, atol=0)
for parameter, gradient in zip(network.parameters(), expected, strict=True):
    torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-15)

if idist.get_rank() == 0:  # without a gradient nobody else is needed
    with torch.no_grad():
        RegionDiceCELoss()(network(images), truth)
processes.leave()
"""


def test_two_processes_get_the_loss_and_the_gradient_of_the_whole_batch(in_two_processes):
    done = in_two_processes(TWO)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_loss_and_gradient_of_any_logits_are_finite_in_every_precision(dtype, size):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(1, 2, 8, 8, 8, generator=generator) * size).clamp(-6e4, 6e4).to(dtype)
    logits.requires_grad_()
    truth = (torch.rand(1, 2, 8, 8, 8, generator=generator) > 0.5).float()
    loss = RegionDiceCELoss()(logits, truth)
    loss.backward()
    exact = RegionDiceCELoss()(logits.detach().double(), truth.double())
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert logits.grad.isfinite().all()
