"""What each regime takes, and how a training step grows with channels, rank and the crop's size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from benchmarking import work
from benchmarking.measures import in_own_process, kept_bytes, median_seconds, peak_memory
from benchmarking.peer import Peer
from benchmarking.rows import Bench
from benchmarking.work import Sizes
from lora_ext.acceleration import accelerate

REGIMES = ("baseline", "frozen", "lora16", "lora32", "lora64")  # finetune trains as baseline does
CHECKPOINTING, PLAIN = "+checkpointing", "+plain"


def measure_regimes(bench: Bench) -> list[dict]:
    """Measure an accelerated step in bfloat16, batch 1, without and with checkpointing."""
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
    """Measure two training steps in this process, which does nothing else.

    Args:
        name: a regime, alone or with ``+checkpointing``, accelerated unless ``+plain`` is added;
            or ``peer``: all weights, float32.
        sizes: of the network; a rank in `name` replaces theirs.
        device: where it runs.

    Returns:
        ``seconds`` of the second step, ``peak`` in GiB, and ``needed``: what weights, gradients,
        Adam's state and kept activations take, in GiB.
    """
    ours, plain = name != "peer", name.endswith(PLAIN)
    network = (_network(name, sizes) if ours else Peer(sizes, None)).to(device)
    if ours:
        accelerate(network, device, "off" if plain else "on")
    image, regions = (tensor.to(device) for tensor in sizes.window())
    weights = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.trainable_parameters())
    step = work.training_step(network, (image, regions), mixed=ours, fused=ours)
    seconds = median_seconds(step, device, 1, keep=ours and not plain)
    peak = peak_memory(device)
    needed = 4 * (weights + 3 * trained) + kept_bytes(work.forward_pass(network, image, ours))
    return {"seconds": seconds, "peak": peak, "needed": needed / 2**30}


def _network(name: str, sizes: Sizes) -> torch.nn.Module:
    regime, *_ = name.split("+")
    rank = re.fullmatch(r"lora(\d+)", regime)
    if rank is not None and sizes.rank >= 16:  # the small sizes keep their small rank
        sizes = sizes.with_(rank=int(rank[1]))
    return sizes.network(
        "lora" if rank is not None else regime, activation_checkpointing=CHECKPOINTING in name
    )


CHANNELS = (1, 2, 4, 8)
RANKS = (8, 16, 32, 64, 128)
# crops of 1/4, 1/2, 1 and 2 times the usual voxels
CROPS = ((2, 2, 1), (1, 2, 1), (1, 1, 1), (1, 1, 0.5))


def variants(sizes: Sizes) -> Iterator[tuple[str, float, Sizes]]:
    """Yield what is varied, to which value, and the sizes with it."""
    for channels in CHANNELS:
        yield "channels", channels, sizes.with_(channels=channels)
    for rank in RANKS:
        yield "rank", rank, sizes.with_(rank=rank)
    for divisors in CROPS:
        roi = tuple(int(n / d) for n, d in zip(sizes.roi, divisors, strict=True))
        yield "roi", roi[0] * roi[1] * roi[2], sizes.with_(roi=roi)


def measure_scaling(bench: Bench) -> list[dict]:
    """Measure an accelerated step in bfloat16: seconds and GiB of kept activations."""
    rows = []
    for name, value, sizes in variants(bench.sizes):
        network = accelerate(sizes.network().to(bench.device), bench.device, "on")
        image, regions = (tensor.to(bench.device) for tensor in sizes.window())
        kept = kept_bytes(work.forward_pass(network, image, True)) / 2**30
        step = work.training_step(network, (image, regions), mixed=True, fused=True)
        time = median_seconds(step, bench.device, bench.repeats)
        rows.append({"name": name, "value": value, "seconds": time, "activations_gib": kept})
        print(f"{name:<10}{value:>9} {time:8.2f} s {kept:7.2f} GiB kept", flush=True)
    return rows


def plot_scaling(rows: list[dict], path: Path) -> None:
    """Plot time against value, a panel per varied thing, with the line through zero beside it."""
    labels = {"channels": "image channels", "rank": "LoRA rank", "roi": "voxels of a crop"}
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), sharey=True, layout="constrained")
    for axis, (name, label) in zip(axes, labels.items(), strict=True):
        points = [(row["value"], row["seconds"]) for row in rows if row["name"] == name]
        values, times = zip(*points, strict=True)
        axis.plot(values, times, "o-", color="tab:blue", label="measured")
        if name != "rank":
            last = times[-1] / values[-1]
            axis.plot((0, values[-1]), (0, last * values[-1]), ":", color="0.5", label="linear")
            axis.set_xlim(left=0)
            axis.legend(frameon=False)
        else:
            axis.set_xscale("log", base=2)
            axis.set_xticks(values, [str(v) for v in values])
        axis.set_xlabel(label)
    axes[0].set_ylabel("seconds per training step")
    axes[0].set_ylim(bottom=0)
    figure.savefig(path, dpi=110)
    plt.close(figure)
