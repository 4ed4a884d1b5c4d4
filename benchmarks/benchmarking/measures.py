"""Seconds, peak memory, and what this machine could do at best: measured rates, and counted work.

The limit of a piece of work is the time of its arithmetic at the rate of a large product or
convolution in the same precision, plus the time of the bytes that must move at the rate of a copy.
It counts the network as it is defined (MONAI's order of arithmetic), so work that is saved by
another order can bring a share above what the rates alone allow.
"""

from __future__ import annotations

import gc
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lora_ext.acceleration import keep_freed_memory

SCRIPT = Path(__file__).parents[1] / "benchmark.py"


def synchronise(device: torch.device) -> None:
    """Wait for what was started on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Measure how long one call takes, in seconds."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def median_seconds(
    work: Callable[[], object], device: torch.device, repeats: int, keep: bool = True
) -> float:
    """Measure the median seconds of several calls after a first one that is not counted.

    Args:
        work: what is measured.
        device: where it runs.
        repeats: calls that count.
        keep: whether the process keeps freed memory, as an accelerated one does on the CPU.
    """
    gc.collect()
    keep_freed_memory(device, keep)
    work()
    times = [seconds(work, device) for _ in range(repeats)]
    keep_freed_memory(device, False)
    return statistics.median(times)


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep cuDNN's float32 convolutions from being rounded to TF32, so that outputs compare."""
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def peak_memory(device: torch.device) -> float:
    """Measure this process' peak memory in GiB: of the GPU, or resident on a CPU."""
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
    command = [sys.executable, str(SCRIPT), "--child", *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    return json.loads(output.strip().splitlines()[-1])


@dataclass(frozen=True)
class Rates:
    """Rates of one precision: products and convolutions in FLOP/s, copies in byte/s."""

    product: float
    convolution: float
    copy: float

    def seconds(self, work: Work) -> float:
        """Compute the least time for `work`, in seconds."""
        return (
            work.products / self.product
            + work.convolutions / self.convolution
            + work.bytes / self.copy
        )


@dataclass(frozen=True)
class Work:
    """Counted work: FLOP in products and convolutions, bytes that must be read or written."""

    products: float = 0.0
    convolutions: float = 0.0
    bytes: float = 0.0

    def times(self, count: float) -> Work:
        """Return the same work, `count` times."""
        return Work(self.products * count, self.convolutions * count, self.bytes * count)


def measure_rates(device: torch.device, dtype: torch.dtype, repeats: int, small: bool) -> Rates:
    """Measure a large matrix product, a large 3x3x3 convolution and a copy.

    The convolution has 64 channels in and out, channels-last, as the decoder's finest level has;
    its rate is that of the forward pass.
    """
    side, voxels = (512, (32, 32, 16)) if small else (4096, (128, 128, 48))
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    layout = torch.channels_last_3d
    x = torch.randn(1, 64, *voxels, device=device, dtype=dtype).to(memory_format=layout)
    kernel = torch.randn(64, 64, 3, 3, 3, device=device, dtype=dtype).to(memory_format=layout)
    source = torch.randn(2**22 if small else 2**26, device=device)
    target = torch.empty_like(source)
    with torch.no_grad():
        product = median_seconds(lambda: a @ b, device, repeats)
        convolution = median_seconds(
            lambda: functional.conv3d(x, kernel, padding=1), device, repeats
        )
        copy = median_seconds(lambda: target.copy_(source), device, repeats)
    return Rates(
        2 * side**3 / product,
        2 * 27 * 64 * 64 * x[0, 0].numel() / convolution,
        2 * 4 * source.numel() / copy,
    )


def count(work: Callable[[], object], moved: float = 0.0) -> Work:
    """Count the FLOP of a call by running it once.

    Args:
        work: what is counted; may contain a backward pass.
        moved: bytes that it must move.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    flops = counter.get_flop_counts()["Global"]
    convolutions = sum(n for op, n in flops.items() if "conv" in str(op))
    return Work(sum(flops.values()) - convolutions, convolutions, moved)


def kept_bytes(work: Callable[[], torch.Tensor]) -> int:
    """Count the bytes of activations that a forward pass keeps for its backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output kept as it is would hold its own graph for ever

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = work()  # noqa: F841 (alive, so that no two tensors share an address)
    return sum(kept.values())
