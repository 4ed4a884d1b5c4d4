"""Keep freed memory for the next step, on Linux's CPU.

glibc gives every large block back to the system when it is freed and asks for it anew. The system
then clears each page at its first touch. A training step frees and asks for the same gigabytes
over and over, so on a CPU much of its time can go into that (README, "Fast and lean").
"""

from __future__ import annotations

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
MMAP_MAX_DEFAULT, TRIM_DEFAULT = 65536, 128 * 1024


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
    maps, trim = (0, -1) if keep else (MMAP_MAX_DEFAULT, TRIM_DEFAULT)
    return bool(mallopt(M_MMAP_MAX, maps) and mallopt(M_TRIM_THRESHOLD, trim))
