"""Mixed precision: the network's forward pass in bfloat16, where the device is faster in it.

bfloat16 has float32's range, so no loss scaling is needed; weights, the loss and the optimizer stay
in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def has_fast_bfloat16(device: str | torch.device) -> bool:
    """Whether a device has bfloat16 instructions; without them bfloat16 is slower than float32."""
    kind = torch.device(device).type
    if kind == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def run_in_bfloat16(network: nn.Module, device: str | torch.device) -> None:
    """Let a network's forward pass run in bfloat16 from now on, in place.

    Every caller gets it by that: the trainer, sliding windows, ``DistributedDataParallel``. A
    tensor that the network returns is float32 again.

    Args:
        network: the network.
        device: where it runs.
    """
    kind = torch.device(device).type
    network.forward = partial(_in_bfloat16, network, kind)


def _in_bfloat16(network: nn.Module, kind: str, *inputs: Any, **options: Any) -> Any:
    with torch.autocast(kind, torch.bfloat16):
        output = type(network).forward(network, *inputs, **options)
    return output.float() if isinstance(output, Tensor) else output
