"""Keep freed memory for the next step, on Linux's CPU.

glibc gives every large block back to the system when it is freed and asks for it anew. The system
then clears each page at its first touch. A training step frees and asks for the same gigabytes
over and over, so on a CPU much of its time can go into that (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # glibc's malloc.h
KEEP = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
# What glibc arrives at in a process that frees large blocks. Its thresholds no longer
# move once one of them was set, so the first defaults would be slower than an untouched process.
DEFAULTS = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 64 * 2**20}


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
