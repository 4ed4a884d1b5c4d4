"""What this machine could do at best: measured rates, and the work that is counted.

The limit of a piece of work is the time of its arithmetic at the rate of a large product or
convolution in the same precision, plus the time of the bytes that must move at the rate of a copy.
It counts the network as it is defined (MONAI's order of arithmetic), so work that is saved by
another order can bring a share above what the rates alone allow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarking.timing import median_seconds


@dataclass(frozen=True)
class Rates:
    """Rates of one precision: products and convolutions in FLOP/s, copies in byte/s."""

    product: float
    convolution: float
    copy: float

    def seconds(self, work: Work) -> float:
        """The least time for `work`."""
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
        """The same work, `count` times."""
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
    """Bytes of the activations that a forward pass keeps for its backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output kept as it is would hold its own graph for ever

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = work()  # noqa: F841 (alive, so that no two tensors share an address)
    return sum(kept.values())
