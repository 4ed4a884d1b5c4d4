"""The rows of the benchmark: the peer, our plain network, and the same one accelerated."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarking import work
from benchmarking.measures import (
    Rates,
    count,
    full_precision,
    in_own_process,
    kept_bytes,
    median_seconds,
    seconds,
)
from benchmarking.peer import Peer, peer_of
from benchmarking.work import Sizes, autocast
from lora_ext import ChannelLoRAUNETR, save_adapter
from lora_ext.acceleration import accelerate

OURS = ("plain", "accelerated")
SIDES = ("peer", *OURS)
FLOAT32_TOLERANCE = 1e-3  # largest difference, as a share of the largest output
MIXED_TOLERANCE = 1.5  # root mean square error against float32, as a multiple of the peer's


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: what was measured.
        unit: unit of `values`.
        values: what each side of `SIDES` takes.
        limit: the least that the machine allows, in the same unit; None where it has no meaning.
    """

    name: str
    unit: str
    values: Mapping[str, float]
    limit: float | None = None

    def as_dict(self) -> dict[str, float | str | None]:
        """Return the row as the JSON file has it; a ratio below 1 is in the first one's favour."""
        peer, plain, accelerated = (self.values[side] for side in SIDES)
        return {
            "name": self.name,
            "unit": self.unit,
            **self.values,
            "plain_to_peer": plain / peer,
            "accelerated_to_peer": accelerated / peer,
            "accelerated_to_plain": accelerated / plain,
            "share_of_limit": None if self.limit is None else self.limit / accelerated,
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

    def build(self, side: str, regime: str = "lora") -> ChannelLoRAUNETR | Peer:
        """Build the network of one side on the device; all sides have the same weights."""
        network = self.sizes.network(regime)
        if side == "peer":
            return peer_of(network, self.sizes, self.sizes.rank).to(self.device)
        return accelerate(
            network.to(self.device), self.device, "on" if side == "accelerated" else "off"
        )

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return a training batch on the device."""
        image, regions = self.sizes.window()
        return image.to(self.device), regions.to(self.device)

    def time(self, run: Callable[[], object], side: str, repeats: int | None = None) -> float:
        """Return median seconds; freed memory is kept where acceleration does that."""
        keep = side == "accelerated"
        return median_seconds(run, self.device, repeats or self.repeats, keep=keep)

    def times(self, make: Callable[[str], Callable[[], object]]) -> dict[str, float]:
        """Time what `make` gives for each side, one side after the other."""
        return {side: self.time(make(side), side) for side in SIDES}


def check_equal_outputs(bench: Bench) -> dict[str, dict[str, float]]:
    """Compare outputs with the peer's in float32, and errors of the mixed precisions against that.

    Returns:
        For ``plain`` and ``accelerated``: ``float32`` and ``mixed``, the two figures that
        `FLOAT32_TOLERANCE` and `MIXED_TOLERANCE` bound.

    Raises:
        RuntimeError: if one is above its tolerance.
    """
    image, _ = bench.batch()
    full, mixed = {}, {}
    for side in SIDES:
        network = bench.build(side).eval()
        full[side], mixed[side] = _outputs(network, image, False), _outputs(network, image, True)
    expected = full["peer"]
    errors = {side: (mixed[side] - expected).square().mean().sqrt() for side in SIDES}
    found = {
        side: {
            "float32": float((full[side] - expected).abs().max() / expected.abs().max()),
            "mixed": float(errors[side] / errors["peer"]),
        }
        for side in OURS
    }
    for side, figures in found.items():
        if not (figures["float32"] <= FLOAT32_TOLERANCE and figures["mixed"] <= MIXED_TOLERANCE):
            raise RuntimeError(
                f"outputs differ from the peer's ({side}): expected at most {FLOAT32_TOLERANCE} "
                f"in float32 and {MIXED_TOLERANCE} times its error in bfloat16, got {figures}"
            )
    return found


def _outputs(module: nn.Module, image: Tensor, mixed: bool) -> Tensor:
    with torch.inference_mode(), full_precision(), autocast(image.device, mixed):
        return module(image).float()


def encoder_rows(bench: Bench) -> Iterator[Row]:
    """Measure the encoder over all channels, forward and with gradients, and against its floor."""
    image, _ = bench.batch()

    def make(side: str, backward: bool) -> Callable[[], object]:
        return work.encoder_pass(bench.build(side).encoder, image, backward=backward)

    for name, backward in (("encoder_forward", False), ("encoder_forward_backward", True)):
        times = bench.times(lambda side, backward=backward: make(side, backward))
        limit = bench.mixed.seconds(count(make("accelerated", backward)))
        yield Row(name, "s", times, limit)
    floor = work.below_first_adapter_frozen(bench.build("accelerated", "frozen").encoder)
    least = bench.time(work.encoder_pass(floor, image, backward=True), "accelerated")
    yield Row("encoder_over_frozen_floor", "s", {**times, "peer": least}, limit)


def training_rows(bench: Bench) -> Iterator[Row]:
    """Measure a training step: ours in bfloat16 and float32, the peer in both."""
    batch = bench.batch()

    def make(side: str, mixed: bool) -> Callable[[], object]:
        return work.training_step(bench.build(side), batch, mixed=mixed, fused=side != "peer")

    moved = _step_bytes(bench.build("accelerated"), batch[0])
    counted = count(make("peer", True), moved)
    mixed = bench.times(lambda side: make(side, True))
    full = bench.times(lambda side: make(side, False))
    limit = bench.mixed.seconds(counted)
    yield Row("train_step_autocast", "s", mixed, limit)
    yield Row("train_step_float32", "s", {**mixed, "peer": full["peer"]}, limit)
    yield Row("train_step_both_float32", "s", full, bench.full.seconds(counted))


def _step_bytes(network: ChannelLoRAUNETR, image: Tensor) -> float:
    """Bytes that a step must move: kept activations once out and in, Adam's seven per weight."""
    trained = sum(p.numel() for p in network.trainable_parameters())
    return 2 * kept_bytes(work.forward_pass(network, image, True)) + 7 * 4 * trained


def memory_row(bench: Bench) -> Iterator[Row]:
    """Measure peak memory: our adapters in bfloat16, the peer's full fine-tuning in float32."""
    names = {"peer": "peer", "plain": "lora32+plain", "accelerated": "lora32"}
    found = {
        side: in_own_process(name, bench.size_name, str(bench.device))
        for side, name in names.items()
    }
    peaks = {side: figures["peak"] for side, figures in found.items()}
    yield Row("train_peak_memory", "GiB", peaks, found["accelerated"]["needed"])


def inference_rows(bench: Bench) -> Iterator[Row]:
    """Measure a window, and a whole case: ours cropped in bfloat16, the peer's all in float32."""
    image, case = bench.batch()[0], bench.sizes.whole_case().to(bench.device)
    windows, cases, needed = {}, {}, 0.0
    for side in SIDES:
        network = bench.build(side).eval()
        run = work.windows(bench.sizes, network, mixed=side != "peer")
        whole = work.whole_case(bench.sizes, network, case, lean=side != "peer")
        if side == "peer":
            needed = bench.mixed.seconds(count(lambda run=run: run(image)))
        windows[side] = bench.time(lambda run=run: run(image), side)
        # no warm-up: the windows before were one, and this is by far the longest piece of work
        cases[side] = seconds(whole, bench.device)
    yield Row("inference_window", "s", windows, needed)
    number = work.count_windows(bench.sizes, bench.sizes.head)
    yield Row("inference_case", "s", cases, needed * number)


def start_row(bench: Bench) -> Iterator[Row]:
    """Measure from a new process to a network on the device, always at the paper's size."""
    yield Row("bundle_start", "s", bench.times(lambda side: work.start(side, bench.device)))


def file_row(bench: Bench) -> Iterator[Row]:
    """Measure what a trained task takes on disk: our one file, and peft's folders with the rest."""
    network = bench.build("plain")
    peer = bench.build("peer")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "adapter.safetensors")
        save_adapter(network, path)
        ours = os.path.getsize(path) / 2**20
        peer.encoder.vit.save_pretrained(Path(folder, "peft"))
        rest = nn.ModuleList([peer.fusion, peer.unetr]).state_dict()
        torch.save(rest, Path(folder, "peft", "rest.pt"))
        theirs = sum(f.stat().st_size for f in Path(folder, "peft").rglob("*") if f.is_file())
    trained = 4 * sum(p.numel() for p in network.trainable_parameters())
    sizes = {"peer": theirs / 2**20, "plain": ours, "accelerated": ours}
    yield Row("adapter_file", "MiB", sizes, trained / 2**20)


ROWS = {
    "encoder": encoder_rows,
    "training": training_rows,
    "memory": memory_row,
    "inference": inference_rows,
    "file": file_row,
    "start": start_row,
}
