"""Measure one training step and one validation window at the paper's size, on this machine's CPU.

Usage: python ci/paper_size.py [BUNDLE ...]     (default: brats_lora32)

Each part of each bundle runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import torch

from lora_ext import ChannelLoRAUNETR, parameter_report
from lora_ext.bundles.generator import bundle_facts
from lora_ext.training import RegionDiceCELoss


def build(name: str) -> tuple[ChannelLoRAUNETR, torch.Tensor, torch.Tensor]:
    """The bundle's network at its own sizes, one image and its regions."""
    torch.manual_seed(0)
    facts = bundle_facts()[name]
    channels, regions = len(facts["modalities"]), len(facts["regions"])
    network = ChannelLoRAUNETR(
        channels,
        regions,
        facts["roi_size"],
        regime=facts["regime"],
        lora_rank=facts["lora_rank"],
        feature_size=facts["feature_size"],
    )
    image = torch.randn(1, channels, *facts["roi_size"])
    return network, image, (torch.rand(1, regions, *facts["roi_size"]) > 0.8).float()


def train_step(name: str) -> list[float]:
    """Two full training steps, batch 1, float32; the first also makes Adam's state."""
    network, image, regions = build(name)
    optimizer, loss = torch.optim.Adam(network.trainable_parameters()), RegionDiceCELoss()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss(network(image), regions).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def validation_window(name: str) -> list[float]:
    """Two forward passes of one window without gradients."""
    network, image, _ = build(name)
    network.eval()
    seconds = []
    with torch.inference_mode():
        for _ in range(2):
            start = time.perf_counter()
            network(image)
            seconds.append(time.perf_counter() - start)
    return seconds


PARTS = {"train_step": train_step, "validation_window": validation_window}


def main(arguments: list[str]) -> None:
    """Measure, or run one part as a child."""
    if arguments and arguments[0] in PARTS:
        part, name = arguments
        first, second = PARTS[part](name)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{part:<18} first {first:6.1f} s, second {second:6.1f} s, peak {peak:5.1f} GiB")
        return
    for name in arguments or ["brats_lora32"]:
        with torch.device("meta"):
            network, *_ = build(name)  # no memory yet, only the counts
        total = parameter_report(network).total
        print(f"{name}: {total:,} parameters, float32, batch 1, {torch.get_num_threads()} threads")
        for part in PARTS:
            subprocess.run([sys.executable, __file__, part, name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
