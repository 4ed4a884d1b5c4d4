"""How fast and lean the package is, against the same network built from MONAI's and peft's parts.

Usage: python ci/benchmark.py [--device cuda] [--json OUT] [--size paper|small] [--repeats 3]
                              [--rows encoder,training,memory,inference,file,start]
       python ci/benchmark.py --scaling PLOT.png [--device cuda] [--json OUT]
       python ci/benchmark.py --regimes True [--device cuda] [--json OUT]

Both sides run in one process, with the same weights, one after the other; every figure is a median
after a first call that is not counted. Equal outputs are checked first. A ratio below 1 is in our
favour. `share_of_limit` is the least time (or memory) that the machine's measured rates allow, as a
share of ours. At the paper's size it takes about a quarter of an hour on two cores.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import fire
import torch
from benchmarking.equality import check_equal_outputs
from benchmarking.limit import measure_rates
from benchmarking.regimes import measure_alone, measure_regimes
from benchmarking.rows import ROWS, Bench
from benchmarking.scaling import measure_scaling, plot_scaling
from benchmarking.sizes import SIZES

CHILD = "--child"


def make_bench(size: str, device: str, repeats: int) -> Bench:
    """Measure the machine's rates."""
    if size not in SIZES:
        raise ValueError(f"--size: found {size!r}; allowed are {', '.join(SIZES)}")
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
    """The rows of these groups, printed as they come."""
    equal = check_equal_outputs(bench)
    print(f"outputs: largest difference {equal['float32']:.1e} of the largest output in float32, ")
    print(f"         error of bfloat16 {equal['mixed']:.2f} times the peer's")
    print(f"{'name':<28}{'ours':>10}{'peer':>10} {'unit':<5}{'ratio':>7}{'of limit':>10}")
    rows = []
    for group in groups:
        for row in ROWS[group](bench):
            rows.append(row.as_dict())
            share = "-" if row.share_of_limit is None else f"{row.share_of_limit:.2f}"
            print(
                f"{row.name:<28}{row.ours:>10.3f}{row.peer:>10.3f} {row.unit:<5}"
                f"{row.ours / row.peer:>7.2f}{share:>10}",
                flush=True,
            )
    return rows


def main(
    device: str = "cpu",
    json_path: str | None = None,
    size: str = "paper",
    repeats: int = 3,
    scaling: str | None = None,
    regimes: bool = False,
    rows: str | tuple[str, ...] = tuple(ROWS),
) -> None:
    """Run the benchmark, or measure how the cost of a step grows, or what each regime takes."""
    groups = rows.split(",") if isinstance(rows, str) else list(rows)
    if not set(groups) <= set(ROWS):
        raise ValueError(f"--rows: found {groups}; allowed are {', '.join(ROWS)}")
    bench = make_bench(size, device, repeats)
    if regimes:
        results = measure_regimes(bench)
    elif scaling is not None:
        results = measure_scaling(bench)
        plot_scaling(results, Path(scaling))
    else:
        results = run_rows(bench, groups)
    if json_path is not None:
        Path(json_path).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def child(name: str, size: str, device: str) -> None:
    """Measure the peak memory of one side; its last line is JSON."""
    print(json.dumps(measure_alone(name, SIZES[size], torch.device(device))))


if __name__ == "__main__":
    import sys

    warnings.filterwarnings("ignore")
    arguments = ["--json_path" if a == "--json" else a for a in sys.argv[1:]]
    if arguments[:1] == [CHILD]:
        child(*arguments[1:])
    else:
        fire.Fire(main, command=arguments)
