"""How the time and memory of a training step grow with channels, rank and the size of a crop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt

from benchmarking import work
from benchmarking.limit import kept_bytes
from benchmarking.rows import Bench
from benchmarking.sizes import Sizes
from benchmarking.timing import median_seconds

CHANNELS = (1, 2, 4, 8)
RANKS = (8, 16, 32, 64, 128)
# crops of 1/4, 1/2, 1 and 2 times the usual voxels
CROPS = ((2, 2, 1), (1, 2, 1), (1, 1, 1), (1, 1, 0.5))


def variants(sizes: Sizes) -> Iterator[tuple[str, float, Sizes]]:
    """What is varied, to which value, and the sizes with it."""
    for channels in CHANNELS:
        yield "channels", channels, sizes.with_(channels=channels)
    for rank in RANKS:
        yield "rank", rank, sizes.with_(rank=rank)
    for divisors in CROPS:
        roi = tuple(int(n / d) for n, d in zip(sizes.roi, divisors, strict=True))
        yield "roi", roi[0] * roi[1] * roi[2], sizes.with_(roi=roi)


def measure_scaling(bench: Bench) -> list[dict]:
    """Seconds of a bfloat16 training step and GiB of kept activations, one thing varied."""
    rows = []
    for name, value, sizes in variants(bench.sizes):
        network = sizes.network().to(bench.device)
        image, regions = (tensor.to(bench.device) for tensor in sizes.window())
        kept = kept_bytes(work.forward_pass(network, image, True)) / 2**30
        step = work.training_step(network, (image, regions), mixed=True, fused=True)
        time = median_seconds(step, bench.device, bench.repeats)
        rows.append({"name": name, "value": value, "seconds": time, "activations_gib": kept})
        print(f"{name:<10}{value:>9} {time:8.2f} s {kept:7.2f} GiB kept", flush=True)
    return rows


def plot_scaling(rows: list[dict], path: Path) -> None:
    """One panel per varied thing: time against value, with the line through zero for comparison."""
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
