"""Timing two things side by side, and peak memory in a process of its own."""

from __future__ import annotations

import gc
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lora_ext.acceleration import keep_freed_memory


def synchronise(device: torch.device) -> None:
    """Wait for what was started on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long one call takes."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def median_seconds(
    work: Callable[[], object], device: torch.device, repeats: int, keep: bool = True
) -> float:
    """Median of several calls after a first one that is not counted.

    Args:
        work: what is measured.
        device: where it runs.
        repeats: calls that count.
        keep: whether freed memory is kept, as our bundles do on the CPU; the peer's is not.
    """
    gc.collect()
    keep_freed_memory(device, keep)
    work()
    times = [seconds(work, device) for _ in range(repeats)]
    keep_freed_memory(device, False)
    return statistics.median(times)


def peak_memory(device: torch.device) -> float:
    """This process' peak memory in GiB: of the GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    if status.is_file():  # a child's ru_maxrss begins at its parent's, this does not
        peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if peak is not None:
            return int(peak[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_own_process(*arguments: str) -> dict[str, float]:
    """Run ``benchmark.py --child ...`` and read the JSON of its last line."""
    command = [sys.executable, sys.argv[0], "--child", *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    return json.loads(output.strip().splitlines()[-1])
