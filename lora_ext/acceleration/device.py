"""What depends on the device: bfloat16, memory that is kept, compilation.

**bfloat16** has float32's range, so no loss scaling is needed; weights, the loss and the optimizer
stay in float32. **Memory** on Linux's CPU: glibc gives every large block back to the system when it
is freed and asks for it anew, and the system then clears each page at its first touch. A training
step frees and asks for the same gigabytes over and over, so on a CPU much of its time can go into
that (docs/performance.md). **Compilation** is used where it works; where it does not, training runs
without it.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # glibc's malloc.h
KEEP = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
# What glibc arrives at in a process that frees large blocks. Its thresholds no longer
# move once one of them was set, so the first defaults would be slower than an untouched process.
DEFAULTS = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 64 * 2**20}


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


def keep_freed_memory(device: str | torch.device = "cpu", keep: bool = True) -> bool:
    """Let this process keep the memory that it frees, until it ends.

    Peak memory grows somewhat, as blocks of one size leave gaps for others.

    Args:
        device: where the network runs; on any other than the CPU nothing is changed, since the
            large blocks are not the system's there.
        keep: False goes back to glibc's defaults.

    Returns:
        Whether the C library is glibc and took the settings.
    """
    if torch.device(device).type != "cpu" or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return all(mallopt(name, value) for name, value in (KEEP if keep else DEFAULTS).items())


def compilation(wanted: bool, device: str | torch.device = "cpu") -> bool:
    """Say whether to compile the network: wanted, and possible on this machine.

    A small function is compiled as a trial, since a machine without a compiler shows that only when
    the first batch runs.

    Args:
        wanted: the setting ``compile``.
        device: where the network runs.

    Returns:
        `wanted`, or False where the trial failed; the reason is logged.
    """
    if not wanted:
        return False
    try:
        torch.compile(_trial, fullgraph=True)(torch.ones(8, device=device, requires_grad=True))
    except Exception as error:  # anything that a compiler, a driver or a file system can raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        logger.warning(
            "compile: torch.compile does not work here (%s); training without it", reason
        )
        return False
    return True


def _trial(x: torch.Tensor) -> torch.Tensor:
    return (torch.sin(x) * x).sum()
