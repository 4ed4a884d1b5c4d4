"""Runs summed up: which there are, mean and spread of a measure, change, and who is best.

A record is one entry of ``runs`` in results.json: a run with all that came of it.
A measure is a region's name, ``mean_dice`` or ``pooled_dice``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_ext.bundles.generator import DATASETS, REGIMES

Record = dict[str, Any]
OVERALL = ("mean_dice", "pooled_dice")


@dataclass(frozen=True)
class Spread:
    """Values of several runs, their mean and their sample standard deviation.

    Attributes:
        values: one per run.
        mean: NaN without values.
        std: with n - 1; NaN for fewer than two values.
    """

    values: tuple[float, ...]
    mean: float
    std: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        """Sum up values; None is left out."""
        known = tuple(float(value) for value in values if value is not None)
        mean = float(np.mean(known)) if known else math.nan
        std = float(np.std(known, ddof=1)) if len(known) > 1 else math.nan
        return cls(known, mean, std)


def finished(results: Mapping[str, Any]) -> list[Record]:
    """Return the runs that are done."""
    return [run for run in results["runs"] if run["status"] == "done"]


def unfinished(results: Mapping[str, Any]) -> list[Record]:
    """Return the runs that are not done, the failed ones."""
    return [run for run in results["runs"] if run["status"] != "done"]


def by_regime(results: Mapping[str, Any]) -> dict[str, dict[str, list[Record]]]:
    """Sort the finished runs by data set and regime.

    Args:
        results: the content of results.json.

    Returns:
        Runs by data set and regime, in the paper's order; then what the paper does not have in
        the order of the runs, references last.
    """
    runs = finished(results)
    table: dict[str, dict[str, list[Record]]] = {}
    for dataset in _ordered((run["dataset"] for run in runs), DATASETS):
        own = [run for run in runs if run["dataset"] == dataset]
        own.sort(key=lambda run: bool(run.get("reference")))
        regimes = _ordered((run["regime"] for run in own), REGIMES)
        table[dataset] = {name: [run for run in own if run["regime"] == name] for name in regimes}
    return table


def references(regimes: Mapping[str, Sequence[Record]]) -> set[str]:
    """Return the names of the columns that are reference networks, not regimes of the paper."""
    return {name for name, runs in regimes.items() if runs[0].get("reference")}


def measures(regimes: Mapping[str, Sequence[Record]]) -> list[str]:
    """Return the measures of a data set's runs: its regions in their order, then `OVERALL`."""
    names = (region for runs in regimes.values() for run in runs for region in run["regions"])
    return [*dict.fromkeys(names), *OVERALL]


def value_of(run: Record, measure: str) -> float | None:
    """Return a run's Dice over all its cases, None where it lacks the measure."""
    summary = run["summary"]
    if measure in OVERALL:
        return summary[measure]
    return summary["regions"].get(measure, {}).get("dice")


def spread(runs: Iterable[Record], measure: str) -> Spread:
    """Sum up a measure over runs, that is over seeds and folds."""
    return Spread.of(value_of(run, measure) for run in runs)


def percent_change(value: float, baseline: float) -> float:
    """Return the change against `baseline` in percent; NaN where it is undefined."""
    return 100.0 * (value - baseline) / baseline if baseline else math.nan


def ranking(
    means: Mapping[str, float], outside: Collection[str] = (), digits: int = 4
) -> dict[str, int]:
    """Tell the best and the second-best of a row.

    Values are compared as they are printed, so equal figures get equal marks. A name in `outside`
    takes part only where it is better than all others. A single participant is not ranked.

    Args:
        means: value by column; NaN takes no part.
        outside: columns that do not take part by themselves, the references.
        digits: decimals that are printed.

    Returns:
        1 for the best columns and 2 for the second-best ones; the others are left out.
    """
    known = {name: round(mean, digits) for name, mean in means.items() if not math.isnan(mean)}
    best_inside = max((value for name, value in known.items() if name not in outside), default=1.0)
    taking_part = {
        name: value for name, value in known.items() if name not in outside or value > best_inside
    }
    if len(taking_part) < 2:
        return {}
    places = sorted(set(taking_part.values()), reverse=True)[:2]
    return {name: 1 + places.index(value) for name, value in taking_part.items() if value in places}


def _ordered(names: Iterable[str], first: Sequence[str]) -> list[str]:
    """Return the distinct names, those of `first` in its order, then the others."""
    found = list(dict.fromkeys(names))
    return [name for name in first if name in found] + [name for name in found if name not in first]
