"""How fast and lean the package is, against the same network built from MONAI's and peft's parts.

Usage: python benchmarks/benchmark.py [--device cuda] [--json OUT] [--size paper|small]
                                      [--repeats 3] [--rows encoder,training,memory,inference,...]
       python benchmarks/benchmark.py --scaling PLOT.png [--device cuda] [--json OUT]
       python benchmarks/benchmark.py --regimes True [--device cuda] [--json OUT]

Three sides run in one process with the same weights, one after the other: the peer, our plain
network, and the same one accelerated (`lora_ext.acceleration`); every figure is a median after a
first call that is not counted. Equal outputs are checked first. A ratio below 1 is in favour of
the side that is named first. `of limit` is the least time (or memory) that the machine's measured
rates allow, as a share of the accelerated side's. At the paper's size it takes about 20 minutes on
two cores. On a GPU, acceleration `auto` should be on if `acc/plain` is below 1 in the training and
inference rows.
"""

from __future__ import annotations

import sys
import warnings
from json import dumps
from pathlib import Path

import fire
import torch
from benchmarking.growth import measure_alone, measure_regimes, measure_scaling, plot_scaling
from benchmarking.measures import measure_rates
from benchmarking.rows import ROWS, Bench, Row, check_equal_outputs
from benchmarking.work import SIZES

CHILD = "--child"


def make_bench(size: str, device: str, repeats: int) -> Bench:
    """Measure the machine's rates, and return what every row needs.

    Raises:
        ValueError: for an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"--size: expected {' or '.join(SIZES)}, got {size!r}")
    where = torch.device(device)
    mixed, full = (
        measure_rates(where, dtype, max(repeats, 3), size == "small")
        for dtype in (torch.bfloat16, torch.float32)
    )
    for name, rates in (("bfloat16", mixed), ("float32", full)):
        print(
            f"{name}: products {rates.product / 1e9:.0f} GFLOP/s, convolutions "
            f"{rates.convolution / 1e9:.0f} GFLOP/s, copies {rates.copy / 1e9:.1f} GB/s"
        )
    return Bench(SIZES[size], size, where, repeats, mixed, full)


def run_rows(bench: Bench, groups: list[str]) -> list[dict]:
    """Check that all sides compute the same, then measure and print the rows of these groups."""
    for side, found in check_equal_outputs(bench).items():
        print(
            f"outputs, {side}: largest difference {found['float32']:.1e} of the largest output in "
            f"float32, error of bfloat16 {found['mixed']:.2f} times the peer's"
        )
    print(HEADER)
    rows = []
    for group in groups:
        for row in ROWS[group](bench):
            rows.append(row.as_dict())
            print(_line(row), flush=True)
    return rows


HEADER = (
    f"{'name':<27}{'peer':>9}{'plain':>9}{'accelerated':>13} {'unit':<5}"
    f"{'plain/peer':>11}{'acc/peer':>10}{'acc/plain':>11}{'of limit':>10}"
)


def _line(row: Row) -> str:
    found = row.as_dict()
    share = "-" if row.limit is None else f"{found['share_of_limit']:.2f}"
    return (
        f"{row.name:<27}{found['peer']:>9.3f}{found['plain']:>9.3f}{found['accelerated']:>13.3f} "
        f"{row.unit:<5}{found['plain_to_peer']:>11.2f}{found['accelerated_to_peer']:>10.2f}"
        f"{found['accelerated_to_plain']:>11.2f}{share:>10}"
    )


def main(
    device: str = "cpu",
    json: str | None = None,
    size: str = "paper",
    repeats: int = 3,
    scaling: str | None = None,
    regimes: bool = False,
    rows: str | tuple[str, ...] = tuple(ROWS),
) -> None:
    """Run the benchmark, or measure how a step's cost grows, or what each regime takes.

    Args:
        device: where everything runs, ``cpu`` or ``cuda``.
        json: file for the results.
        size: ``paper``, or ``small`` for a look (no statement about speed).
        repeats: calls that count towards a median.
        scaling: file for a plot of how a step grows; it is measured in place of the rows.
        regimes: measure a step of every regime in place of the rows.
        rows: groups of rows, with commas.

    Raises:
        ValueError: for an unknown size or group.
        RuntimeError: if the sides do not compute the same.
    """
    groups = rows.split(",") if isinstance(rows, str) else list(rows)
    if not set(groups) <= set(ROWS):
        raise ValueError(f"--rows: expected some of {', '.join(ROWS)}, got {groups}")
    bench = make_bench(size, device, repeats)
    if regimes:
        results = measure_regimes(bench)
    elif scaling is not None:
        results = measure_scaling(bench)
        plot_scaling(results, Path(scaling))
    else:
        results = run_rows(bench, groups)
    if json is not None:
        Path(json).write_text(dumps(results, indent=2) + "\n", encoding="utf-8")


def child(name: str, size: str, device: str) -> None:
    """Measure the peak memory of one side; its last line is JSON."""
    print(dumps(measure_alone(name, SIZES[size], torch.device(device))))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    if sys.argv[1:2] == [CHILD]:
        child(*sys.argv[2:])
    else:
        fire.Fire(main)
