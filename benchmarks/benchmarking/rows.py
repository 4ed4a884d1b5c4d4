"""The rows of the benchmark, each ours against the peer."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarking import work
from benchmarking.limit import Rates, count, kept_bytes
from benchmarking.peer import Peer, peer_of
from benchmarking.sizes import Sizes
from benchmarking.timing import in_own_process, median_seconds, seconds
from lora_ext import ChannelLoRAUNETR, save_adapter


@dataclass(frozen=True)
class Row:
    """One comparison; a ratio below 1 is in our favour."""

    name: str
    ours: float
    peer: float
    unit: str
    share_of_limit: float | None

    def as_dict(self) -> dict[str, float | str | None]:
        """As the JSON file has it."""
        return {
            "name": self.name,
            "ours": self.ours,
            "peer": self.peer,
            "unit": self.unit,
            "ratio": self.ours / self.peer,
            "share_of_limit": self.share_of_limit,
        }


@dataclass(frozen=True)
class Bench:
    """What every row needs: sizes, device, repeats, and the machine's rates by precision."""

    sizes: Sizes
    size_name: str
    device: torch.device
    repeats: int
    mixed: Rates
    full: Rates

    def network(self, regime: str = "lora") -> ChannelLoRAUNETR:
        """Our network on the device."""
        return self.sizes.network(regime).to(self.device)

    def peer(self, network: ChannelLoRAUNETR) -> Peer:
        """The peer with its weights, on the device."""
        return peer_of(network, self.sizes, self.sizes.rank).to(self.device)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A training batch on the device."""
        image, regions = self.sizes.window()
        return image.to(self.device), regions.to(self.device)

    def time(self, run: Callable[[], object], ours: bool, repeats: int | None = None) -> float:
        """Median seconds; the peer's process does not keep freed memory."""
        return median_seconds(run, self.device, repeats or self.repeats, keep=ours)


def encoder_rows(bench: Bench) -> Iterator[Row]:
    """The encoder over all channels, forward and with gradients, and against its own floor."""
    network = bench.network()
    ours, theirs = network.encoder, bench.peer(network).encoder
    image, _ = bench.batch()
    names = ("encoder_forward", "encoder_forward_backward")
    for name, backward in zip(names, (False, True), strict=True):
        run = work.encoder_pass(ours, image, backward=backward)
        peer = work.encoder_pass(theirs, image, backward=backward)
        limit = bench.mixed.seconds(count(run))
        time = bench.time(run, ours=True)
        yield Row(name, time, bench.time(peer, ours=False), "s", limit / time)
    floor_encoder = bench.network("frozen").encoder
    floor = work.encoder_pass(work.below_first_adapter_frozen(floor_encoder), image, backward=True)
    time, least = bench.time(run, ours=True), bench.time(floor, ours=True)
    yield Row("encoder_over_frozen_floor", time, least, "s", limit / time)


def training_rows(bench: Bench) -> Iterator[Row]:
    """A full training step: ours in bfloat16, the peer in bfloat16 and in float32."""
    network, batch = bench.network(), bench.batch()
    peer = bench.peer(network)
    moved = _step_bytes(network, batch[0])
    counted = count(work.training_step(peer, batch, mixed=True, fused=False), moved)
    times = {}
    for mixed in (True, False):
        step = work.training_step(network, batch, mixed=mixed, fused=True)
        times["ours", mixed] = bench.time(step, ours=True)
        step = work.training_step(peer, batch, mixed=mixed, fused=False)
        times["peer", mixed] = bench.time(step, ours=False)
    ours, limit = times["ours", True], bench.mixed.seconds(counted)
    yield Row("train_step_autocast", ours, times["peer", True], "s", limit / ours)
    yield Row("train_step_float32", ours, times["peer", False], "s", limit / ours)
    both, limit = times["ours", False], bench.full.seconds(counted)
    yield Row("train_step_both_float32", both, times["peer", False], "s", limit / both)


def _step_bytes(network: ChannelLoRAUNETR, image: torch.Tensor) -> float:
    """Bytes that a step must move: kept activations once out and in, Adam's seven per weight."""
    trained = sum(p.numel() for p in network.trainable_parameters())
    return 2 * kept_bytes(work.forward_pass(network, image, True)) + 7 * 4 * trained


def memory_row(bench: Bench) -> Iterator[Row]:
    """Peak memory of training: our adapters in bfloat16, the peer's full fine-tuning in float32."""
    ours, peer = (
        in_own_process(name, bench.size_name, str(bench.device)) for name in ("lora32", "peer")
    )
    share = ours["needed"] / ours["peak"]
    yield Row("train_peak_memory", ours["peak"], peer["peak"], "GiB", share)


def inference_rows(bench: Bench) -> Iterator[Row]:
    """One window, and a whole case: cropped to its foreground, against every window in float32."""
    network = bench.network().eval()
    peer = bench.peer(network).eval()
    image, case = bench.batch()[0], bench.sizes.whole_case().to(bench.device)
    run = work.windows(bench.sizes, network, True)
    plain = work.windows(bench.sizes, peer, False)
    window = bench.mixed.seconds(count(lambda: plain(image)))
    time = bench.time(lambda: run(image), ours=True)
    yield Row("inference_window", time, bench.time(lambda: plain(image), ours=False), "s",
              window / time)  # fmt: skip
    needed = work.count_windows(bench.sizes, bench.sizes.head)
    ours = bench.time(work.whole_case(bench.sizes, network, case, lean=True), ours=True, repeats=1)
    del network
    # no warm-up: the windows before were one, and this is by far the longest piece of work here
    theirs = work.whole_case(bench.sizes, peer, case, lean=False)
    peer_time = seconds(theirs, bench.device)
    yield Row("inference_case", ours, peer_time, "s", window * needed / ours)


def start_row(bench: Bench) -> Iterator[Row]:
    """From a new process to a network on the device, always at the paper's size."""
    ours = bench.time(work.start(True, bench.device), ours=True)
    yield Row("bundle_start", ours, bench.time(work.start(False, bench.device), False), "s", None)


def file_row(bench: Bench) -> Iterator[Row]:
    """What one trained task takes on disk: our one file, and peft's folders with the rest."""
    network = bench.network()
    peer = bench.peer(network)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "adapter.safetensors")
        save_adapter(network, path)
        ours = os.path.getsize(path)
        peer.encoder.vit.save_pretrained(Path(folder, "peft"))
        rest = nn.ModuleList([peer.fusion, peer.unetr]).state_dict()
        torch.save(rest, Path(folder, "peft", "rest.pt"))
        theirs = sum(f.stat().st_size for f in Path(folder, "peft").rglob("*") if f.is_file())
    trained = 4 * sum(p.numel() for p in network.trainable_parameters())
    yield Row("adapter_file", ours / 2**20, theirs / 2**20, "MiB", trained / ours)


ROWS = {
    "encoder": encoder_rows,
    "training": training_rows,
    "memory": memory_row,
    "inference": inference_rows,
    "file": file_row,
    "start": start_row,
}

__all__ = ["ROWS", "Bench", "Row"]
