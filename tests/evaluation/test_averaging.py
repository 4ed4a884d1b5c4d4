"""Probabilities averaged over networks and mirror images, against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import nn

from lora_ext.evaluation import AveragingInferer


class Uneven(nn.Module):
    """A network that sees sides: it answers differently for each mirror image."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(2, 1, 3, 3, 3, generator=generator))

    def forward(self, x):
        return 2 * nn.functional.conv3d(x, self.weight, padding=1) + 1


IMAGE = torch.randn(1, 1, 8, 9, 10, generator=torch.Generator().manual_seed(0))


def probabilities(network, *axes):
    """Of one mirror image, by NumPy."""
    dims = [axis + 2 for axis in axes]
    mirrored = torch.from_numpy(np.flip(IMAGE.numpy(), dims).copy())
    logits = np.flip(network(mirrored).detach().numpy().astype(np.float64), dims)
    return 1 / (1 + np.exp(-logits))


def test_one_network_and_no_axis_change_nothing():
    inferer = SlidingWindowInferer((4, 4, 4), overlap=0.5, mode="gaussian")
    expected = inferer(IMAGE, Uneven(0))
    assert torch.equal(AveragingInferer(inferer)(IMAGE, Uneven(0)), expected)
    alone = nn.ModuleList([Uneven(0)])
    assert torch.equal(AveragingInferer(inferer)(IMAGE, alone), expected)


@pytest.mark.parametrize(
    ("axes", "mirrored"),
    [
        ([], [()]),
        ([0], [(), (0,)]),
        ([2, 1], [(), (1,), (2,), (1, 2)]),
        ([0, 1, 2], [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]),
    ],
)
@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_probabilities_are_the_mean_over_networks_and_mirror_images(axes, mirrored, seeds):
    networks = [Uneven(seed) for seed in seeds]
    network = nn.ModuleList(networks) if len(networks) > 1 else networks[0]
    with torch.no_grad():
        found = AveragingInferer(SimpleInferer(), axes)(IMAGE, network)
    expected = np.mean([probabilities(one, *dims) for one in networks for dims in mirrored], axis=0)
    np.testing.assert_allclose(torch.sigmoid(found), expected, atol=1e-6)
    if len(networks) * len(mirrored) > 1:
        assert np.abs(expected - probabilities(networks[0])).max() > 0.1


def test_certain_probabilities_stay_certain():
    """The logits are infinite there, and no number becomes none."""
    sure = nn.ModuleList([_Constant(200.0), _Constant(200.0)])
    none = nn.ModuleList([_Constant(-200.0), _Constant(-200.0)])
    for networks, expected in ((sure, 1.0), (none, 0.0)):
        found = torch.sigmoid(AveragingInferer(SimpleInferer())(IMAGE, networks))
        assert torch.equal(found, torch.full_like(IMAGE, expected))


class _Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return torch.full_like(x, self.value)


def test_place_in_the_patient_is_kept():
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    image = MetaTensor(IMAGE, affine=affine)
    found = AveragingInferer(SlidingWindowInferer((8, 8, 8)), [0])(image, Uneven(0))
    assert torch.equal(found.affine, affine)
