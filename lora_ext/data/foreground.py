"""What counts as foreground when an image is cropped to it."""

from __future__ import annotations

import torch


def is_foreground(image: torch.Tensor) -> torch.Tensor:
    """Mark the voxels that hold a signal, for MONAI's ``CropForegroundd``.

    Skull-stripped and phantom images are exactly zero around the head; there is nothing to learn or
    to find there. Images without such a background, CT among them, are foreground all over.

    Args:
        image: shape (C, H, W, D), as read from the file.

    Returns:
        True where a channel is not zero; True everywhere if the whole image is zero, so that a
        blank image keeps its size.
    """
    marked = image != 0
    return marked if bool(marked.any()) else torch.ones_like(marked)
