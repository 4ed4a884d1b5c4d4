"""What an encoder knows before any fine-tuning: a linear probe, pre-trained against random.

Usage: python benchmarks/encoder_probe.py STUDY

For one finished ``frozen`` run per data set and seed of a study: from the four taps of all
channels, ridge regression predicts which share of every patch each region fills. It is fitted on
the run's training cases and judged on its validation cases, by the explained variance (R^2, mean
over regions), once with the run's pre-trained encoder and once with random weights. The strength of
the ridge is chosen for each by leave-one-case-out on the training cases.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean

import torch
from encoder_use import prepared, run_cases
from torch import Tensor
from torch.nn.functional import avg_pool3d

from lora_ext import load_encoder, network_from_record
from lora_ext.networks.channel_network import ChannelNetwork
from lora_ext.networks.encoder import PATCH_SIZE

RIDGES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
Case = tuple[Tensor, Tensor]  # features (N, 4 * C * hidden) and shares of the regions (N, R)


@torch.inference_mode()
def features(network: ChannelNetwork, cases: list[tuple[Tensor, Tensor]]) -> list[Case]:
    """Compute the taps of all channels per patch, and the share of each region in it."""
    rows = []
    for image, regions in cases:
        taps = torch.cat(network.encoder(image[None]), dim=-1)[0]  # (C, N, 4 * hidden)
        shares = avg_pool3d(regions[None], PATCH_SIZE)[0].flatten(1).T
        rows.append((taps.transpose(0, 1).flatten(1).double(), shares.double()))
    return rows


def explained(train: list[Case], test: list[Case], ridge: float) -> float:
    """Compute R^2 on `test` of a ridge regression fitted on `train`."""
    x, y = (torch.cat(column) for column in zip(*train, strict=True))
    new_x, new_y = (torch.cat(column) for column in zip(*test, strict=True))
    centre, scale, level = x.mean(0), x.std(0) + 1e-6, y.mean(0)
    x, new_x = (x - centre) / scale, (new_x - centre) / scale
    kernel = x @ x.T + ridge * torch.eye(len(x), dtype=x.dtype)
    found = new_x @ (x.T @ torch.linalg.solve(kernel, y - level)) + level
    missed = ((found - new_y) ** 2).sum(0) / ((new_y - new_y.mean(0)) ** 2).sum(0).clamp(min=1e-9)
    return float((1 - missed).mean())


def probe(train: list[Case], test: list[Case]) -> float:
    """Compute R^2 on `test`, the ridge chosen on `train` alone."""

    def left_out(ridge: float) -> float:
        rest = [[*train[:i], *train[i + 1 :]] for i in range(len(train))]
        return mean(explained(own, [case], ridge) for own, case in zip(rest, train, strict=True))

    return explained(train, test, max(RIDGES, key=left_out))


def main(arguments: list[str]) -> None:
    """Probe both encoders for every data set and seed, and print a line per data set."""
    scores: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(Path(arguments[0]).glob("runs/*_frozen/*/run.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        config = json.loads((path.parent / "models" / "network.json").read_text(encoding="utf-8"))
        cases = {side: prepared(run, items) for side, items in run_cases(run).items()}
        pair = []
        for pretrained in (True, False):
            torch.manual_seed(run["seed"])
            network = network_from_record(config).eval()
            if pretrained:
                load_encoder(network, run["knobs"]["pretrained"])
            sides = [features(network, cases[side]) for side in ("training", "validation")]
            pair.append(probe(*sides))
        scores.setdefault(run["dataset"], []).append((pair[0], pair[1]))
    for dataset, pairs in scores.items():
        ours, random = (mean(column) for column in zip(*pairs, strict=True))
        print(f"{dataset}: R^2 {ours:.3f} pre-trained, {random:.3f} random, {len(pairs)} seeds")


if __name__ == "__main__":
    main(sys.argv[1:])
