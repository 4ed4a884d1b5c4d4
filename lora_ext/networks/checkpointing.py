"""Activation checkpointing: trade time for memory in training (Chen et al. 2016, arXiv:1604.06174).

A block that is recomputed keeps its inputs; what it made on the way is computed once more when its
gradient is due.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(block: nn.Module) -> None:
    """Let a block keep nothing but its inputs where gradients are wanted.

    The block's ``forward`` is replaced, and not the block by a wrapper, so that its parameters keep
    their names. A network that is exported is built without.

    Args:
        block: draws no random numbers, so that computing it twice gives the same.
    """
    block.forward = partial(_recomputed, block)


def _recomputed(block: nn.Module, *inputs: Any) -> Any:
    # Not reentrant: the inputs may be without gradient, as they are above a frozen encoder's first
    # layers, and the parameters still get theirs.
    forward = type(block).forward
    if not torch.is_grad_enabled():
        return forward(block, *inputs)
    return checkpoint(forward, block, *inputs, use_reentrant=False, preserve_rng_state=False)
