"""bfloat16 on the CPU: MONAI's engines switch mixed precision on for CUDA alone.

Convolutions and matrix products run in bfloat16, whose range is float32's, so no loss scaling is
needed; weights, the loss and the optimizer stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has bfloat16 instructions; without them bfloat16 is slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class CPUPrecisionInferer(Inferer):
    """Another inferer, whose network runs in bfloat16 where that is faster on the CPU.

    On any other device, or with `amp` off, it is the other inferer.

    Args:
        inferer: the inferer that is called.
        device: where the network runs.
        amp: whether mixed precision is wanted.
    """

    def __init__(self, inferer: Inferer, device: str | torch.device, amp: bool) -> None:
        super().__init__()
        self.inferer = inferer
        self.active = amp and torch.device(device).type == "cpu" and cpu_has_bfloat16()

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the network on the inputs; a tensor that it gives comes back as float32."""
        if not self.active:
            return self.inferer(inputs, network, *args, **kwargs)

        def in_bfloat16(*inner: Any, **options: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                output = network(*inner, **options)
            return output.float() if isinstance(output, torch.Tensor) else output

        return self.inferer(inputs, in_bfloat16, *args, **kwargs)
