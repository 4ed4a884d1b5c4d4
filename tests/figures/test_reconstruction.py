"""Reconstructions as pictures, from made-up predictions."""

import torch

from lora_ext.figures import reconstruction_figure

RIGHT = torch.zeros(1, 32, 32, 16)
RIGHT[:, 16:] = 1  # the right half is hidden


def parts(volume: torch.Tensor) -> dict[str, torch.Tensor]:
    means = torch.where(RIGHT > 0, volume.mean(), volume)
    return {"hidden": RIGHT, "reconstruction": volume, "means": means}


def test_figure_shows_three_planes_of_four_pictures():
    volume = torch.rand(1, 32, 32, 16)
    figure = reconstruction_figure(volume, parts(volume), "case 1")
    assert len(figure.axes) == 12
    heads = [axis.get_title() for axis in figure.axes[:4]]
    assert heads == ["input", "visible to the encoder", "reconstruction", "patch means alone"]
    shown = figure.axes[1].get_images()[0].get_array()
    assert 0 < shown.mask.mean() < 1  # some of the slice is hidden, and some is not


def test_figure_of_air_alone_can_be_drawn():
    air = torch.zeros(1, 32, 32, 16)
    reconstruction_figure(air, parts(air), "air").canvas.draw()
