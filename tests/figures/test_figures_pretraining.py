import torch

from lora_ext.figures.reconstruction import reconstruct, reconstruction_figure
from lora_ext.pretraining.loss import normalised_patches


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


def test_figure_shows_three_planes_of_four_pictures(volumes):
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1]])
    parts = reconstruct(volumes, torch.zeros(2, 4, 4096), mask)
    figure = reconstruction_figure(volumes[1], {k: v[1] for k, v in parts.items()}, "case 1")
    assert len(figure.axes) == 12
    heads = [axis.get_title() for axis in figure.axes[:4]]
    assert heads == ["input", "visible to the encoder", "reconstruction", "patch means alone"]
    shown = figure.axes[1].get_images()[0].get_array()
    assert 0 < shown.mask.mean() < 1  # some of the slice is hidden, and some is not


def test_figure_of_air_alone_can_be_drawn():
    air = torch.zeros(1, 1, 32, 32, 16)
    parts = reconstruct(air, torch.zeros(1, 4, 4096), torch.ones(1, 4))
    reconstruction_figure(air[0], {k: v[0] for k, v in parts.items()}, "air")
