"""Which regimes are compared, and their measurements paired case by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_ext.study.statistics import OVERALL, Record, references

Measurement = tuple[Any, Any, str]  # seed, fold, case


@dataclass(frozen=True)
class Pairing:
    """The cases that two regimes have in common.

    Attributes:
        cases: names of the cases, sorted.
        first: per case, the first regime's mean over the seeds and folds both have.
        second: the same of the second regime.
        measurements: number of (seed, fold, case) that both have.
        unpaired: number of (seed, fold, case) that only one has; they are left out.
    """

    cases: tuple[str, ...]
    first: np.ndarray
    second: np.ndarray
    measurements: int
    unpaired: int

    @property
    def differences(self) -> np.ndarray:
        """First minus second, one value per case."""
        return self.first - self.second


def case_value(case: Mapping[str, Any], measure: str) -> float | None:
    """Return one case's Dice, None where the case lacks the region."""
    if measure in OVERALL:
        return case[measure]
    return case["regions"].get(measure, {}).get("dice")


def pair(first: Sequence[Record], second: Sequence[Record], measure: str) -> Pairing:
    """Pair two regimes' measurements by seed, fold and case, then average over each case.

    Args:
        first: the first regime's runs on a data set.
        second: the second regime's runs on the same data set.
        measure: a region, `mean_dice` or `pooled_dice`.

    Returns:
        One pair of values per case, so that a case that several seeds evaluated counts once.
    """
    ours, theirs = _measured(first, measure), _measured(second, measure)
    common: dict[str, list[Measurement]] = {}
    for key in sorted(ours.keys() & theirs.keys(), key=str):
        common.setdefault(key[2], []).append(key)
    cases = tuple(sorted(common))
    means = [
        np.array([np.mean([side[key] for key in common[case]]) for case in cases])
        for side in (ours, theirs)
    ]
    shared = len(ours.keys() & theirs.keys())
    return Pairing(cases, means[0], means[1], shared, len(ours.keys() ^ theirs.keys()))


def planned_pairs(regimes: Mapping[str, Sequence[Record]]) -> list[tuple[str, str]]:
    """Return the pairs that the paper's claims are about, fixed before any result.

    Each adapter regime against finetune, frozen and baseline; finetune and frozen against
    baseline; each reference against the study's main regime (LoRA-32 where there is one).
    """
    outside = references(regimes)
    inside = [name for name in regimes if name not in outside]
    full = [name for name in ("finetune", "frozen", "baseline") if name in inside]
    adapted = [name for name in inside if name not in full]
    pairs = [(name, other) for name in adapted for other in full]
    pairs += [(name, "baseline") for name in full[:-1] if "baseline" in full]
    main = main_regime(regimes)
    return pairs + [(main, name) for name in regimes if name in outside and main is not None]


def main_regime(regimes: Mapping[str, Sequence[Record]]) -> str | None:
    """Return LoRA-32 where there is one, else the first regime that is no reference."""
    inside = [name for name in regimes if name not in references(regimes)]
    return "lora32" if "lora32" in inside else next(iter(inside), None)


def _measured(runs: Sequence[Record], measure: str) -> dict[Measurement, float]:
    values = {
        (run["seed"], run["fold"], case["case"]): case_value(case, measure)
        for run in runs
        for case in run["cases"]
    }
    return {key: value for key, value in values.items() if value is not None}
