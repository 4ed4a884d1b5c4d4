"""A batch of volumes as MONAI's engines take it: the volume is its own target."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def volume_as_target(
    batch: dict[str, Any],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Move a batch's volumes to the device, once, as plain tensors.

    Args:
        batch: its ``image`` has shape (B, 1, H, W, D).
        device: where to.
        non_blocking: see `torch.Tensor.to`.
        **kwargs: further arguments of `torch.Tensor.to`.

    Returns:
        Input and target, the same tensor.
    """
    volume = torch.as_tensor(batch["image"]).as_subclass(torch.Tensor)
    volume = volume.to(device=device, non_blocking=non_blocking, **kwargs)
    return volume, volume
