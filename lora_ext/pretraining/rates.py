"""The length of the warm-up of pre-training's learning rate (He et al. 2022, appendix A.1)."""

from __future__ import annotations

SHARE = 0.1  # of all epochs, where nobody says a number; He et al. warm up for 40 epochs


def warm_up(epochs: int, warmup_epochs: int | None = None) -> float:
    """Say for how many epochs the learning rate rises before it falls along half a cosine.

    Args:
        epochs: the epochs of the whole training.
        warmup_epochs: that number; None for a tenth of all.

    Returns:
        Epochs, also a part of one.
    """
    return epochs * SHARE if warmup_epochs is None else warmup_epochs
