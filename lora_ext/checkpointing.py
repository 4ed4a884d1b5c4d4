"""Activation checkpointing: trade time for memory in training (Chen et al. 2016, arXiv:1604.06174).

A block that is recomputed keeps its inputs; what it made on the way is computed once more when its
gradient is due.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recomputed(block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Run a block that keeps its inputs only, where a gradient is wanted at all.

    The non-reentrant form: the inputs may be without gradient, as they are above a frozen
    encoder's first layers, and the parameters still get theirs.

    Args:
        block: draws no random numbers, so that computing it twice gives the same.
        inputs: the block's inputs.

    Returns:
        ``block(*inputs)``.
    """
    if not torch.is_grad_enabled() or torch.jit.is_tracing():
        return block(*inputs)
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)


__all__ = ["recomputed"]
