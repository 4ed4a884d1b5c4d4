"""Time and peak memory of a training step in every regime, each in a process of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from benchmarking import work
from benchmarking.limit import kept_bytes
from benchmarking.peer import Peer
from benchmarking.sizes import Sizes
from benchmarking.timing import in_own_process, median_seconds, peak_memory

if TYPE_CHECKING:
    from benchmarking.rows import Bench

REGIMES = ("baseline", "frozen", "lora16", "lora32", "lora64")  # finetune trains as baseline does
CHECKPOINTING = "+checkpointing"


def measure_regimes(bench: Bench) -> list[dict]:
    """A step in bfloat16, batch 1, with and without activation checkpointing."""
    rows = []
    print(f"{'regime':<12}{'step':>8}{'peak':>11}   {'checkpointing: step':>20}{'peak':>11}")
    for regime in REGIMES:
        plain, lean = (
            in_own_process(regime + option, bench.size_name, str(bench.device))
            for option in ("", CHECKPOINTING)
        )
        rows.append({"name": regime, "plain": plain, "checkpointing": lean})
        print(
            f"{regime:<12}{plain['seconds']:>6.1f} s{plain['peak']:>7.2f} GiB   "
            f"{lean['seconds']:>18.1f} s{lean['peak']:>7.2f} GiB",
            flush=True,
        )
    return rows


def measure_alone(name: str, sizes: Sizes, device: torch.device) -> dict[str, float]:
    """Two training steps in this process, which does nothing else.

    Args:
        name: a regime, with ``+checkpointing`` or without; or ``peer``: all weights, float32.
        sizes: of the network; a rank in `name` replaces theirs.
        device: where it runs.

    Returns:
        ``seconds`` of the second step, ``peak`` in GiB, and ``needed``: what weights, gradients,
        Adam's state and kept activations take, in GiB.
    """
    ours = name != "peer"
    network = (_network(name, sizes) if ours else Peer(sizes, None)).to(device)
    image, regions = (tensor.to(device) for tensor in sizes.window())
    weights = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.trainable_parameters())
    step = work.training_step(network, (image, regions), mixed=ours, fused=ours)
    seconds, peak = median_seconds(step, device, 1, keep=ours), peak_memory(device)
    needed = 4 * (weights + 3 * trained) + kept_bytes(work.forward_pass(network, image, ours))
    return {"seconds": seconds, "peak": peak, "needed": needed / 2**30}


def _network(name: str, sizes: Sizes) -> torch.nn.Module:
    regime, _, checkpointing = name.partition("+")
    rank = re.fullmatch(r"lora(\d+)", regime)
    if rank is not None and sizes.rank >= 16:  # the small sizes keep their small rank
        sizes = sizes.with_(rank=int(rank[1]))
    return sizes.network(
        "lora" if rank is not None else regime, activation_checkpointing=bool(checkpointing)
    )
