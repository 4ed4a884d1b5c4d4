"""Before anything is timed: ours and the peer compute the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarking.rows import Bench
from benchmarking.work import autocast

FLOAT32_TOLERANCE = 1e-3  # largest difference, as a share of the largest output
MIXED_TOLERANCE = 1.5  # root mean square error against float32, as a multiple of the peer's


def check_equal_outputs(bench: Bench) -> dict[str, float]:
    """Compare outputs in float32, and errors of the mixed precisions against that.

    Returns:
        ``float32`` and ``mixed``, the two figures that the tolerances above bound.

    Raises:
        RuntimeError: if either is above its tolerance.
    """
    network = bench.network().eval()
    peer = bench.peer(network).eval()
    image, _ = bench.batch()
    truth = _outputs(peer, image, False)
    full = (_outputs(network, image, False) - truth).abs().max() / truth.abs().max()
    errors = [
        (_outputs(module, image, True) - truth).square().mean().sqrt() for module in (network, peer)
    ]
    found = {"float32": full.item(), "mixed": (errors[0] / errors[1]).item()}
    if not (found["float32"] <= FLOAT32_TOLERANCE and found["mixed"] <= MIXED_TOLERANCE):
        raise RuntimeError(
            f"outputs differ: found {found}; allowed are {FLOAT32_TOLERANCE} and {MIXED_TOLERANCE}"
        )
    return found


def _outputs(module: nn.Module, image: Tensor, mixed: bool) -> Tensor:
    with torch.inference_mode(), autocast(image.device, mixed):
        return module(image).float()
