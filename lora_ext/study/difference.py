"""Is a difference real: Wilcoxon's test, bootstrap interval, Holm's correction."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from lora_ext.study.pairs import pair
from lora_ext.study.statistics import Record

# With 5 differences the smallest two-sided p-value of the test is 2 / 2^5 = 0.0625, so fewer
# than 6 cannot show anything at 0.05.
MIN_CASES = 6
CONFIDENCE = 0.95
RESAMPLES = 9999


@dataclass(frozen=True)
class Comparison:
    """One measure of two regimes on one data set; `difference` is `regime` minus `other`.

    Attributes:
        dataset: the data set.
        measure: a region, `mean_dice` or `pooled_dice`, per case.
        regime: the first regime.
        other: the second regime.
        cases: number of paired cases, the unit of the test.
        measurements: number of paired (seed, fold, case).
        unpaired: number of (seed, fold, case) that only one regime has, left out.
        mean: the first regime's mean over the paired cases.
        other_mean: the second regime's.
        difference: mean difference.
        low: lower end of the 95 % interval of the mean difference, None for too few cases.
        high: upper end.
        p: two-sided p-value of Wilcoxon's signed-rank test, None when there is none.
        p_holm: the same, corrected for the comparisons made together.
        note: why there is no p-value or interval.
    """

    dataset: str
    measure: str
    regime: str
    other: str
    cases: int
    measurements: int
    unpaired: int
    mean: float
    other_mean: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Return the values under their names; undefined ones are None."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


def signed_rank(differences: np.ndarray) -> tuple[float | None, str]:
    """Test whether paired differences are symmetric about 0 (Wilcoxon, two-sided).

    Args:
        differences: one per case.

    Returns:
        The p-value, or None, and what is to be said about it. Zeros are left out, as Wilcoxon
        did; when all are zero, p is 1.
    """
    different = int(np.count_nonzero(differences))
    if len(differences) and not different:
        return 1.0, "all differences are zero"
    if different < MIN_CASES:
        return None, f"{different} cases differ; a test needs {MIN_CASES}"
    return float(stats.wilcoxon(differences).pvalue), ""


def mean_interval(
    differences: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """Return the bootstrap 95 % interval of a mean difference.

    It is the bias-corrected and accelerated one (BCa): a few failed cases make differences of
    Dice skewed, and the percentile interval ignores that. Where BCa is undefined (hardly any
    distinct values) it is the percentile interval.

    Args:
        differences: one per case.
        seed: same seed, same interval.
        resamples: number of bootstrap samples.

    Returns:
        Both ends, or None for fewer than `MIN_CASES` cases.
    """
    if len(differences) < MIN_CASES:
        return None
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            low, high = stats.bootstrap(
                (differences,),
                np.mean,
                n_resamples=resamples,
                confidence_level=CONFIDENCE,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if not (math.isnan(low) or math.isnan(high)):
            break
    return float(low), float(high)


def compare(
    regimes: Mapping[str, Sequence[Record]], dataset: str, regime: str, other: str, measure: str
) -> Comparison:
    """Compare two regimes of one data set in one measure, without correction.

    Args:
        regimes: the data set's runs by regime.
        dataset: its name.
        regime: the first regime.
        other: the second regime.
        measure: a region, `mean_dice` or `pooled_dice`.
    """
    paired = pair(regimes[regime], regimes[other], measure)
    p, note = signed_rank(paired.differences)
    ends = mean_interval(paired.differences)
    if ends is None:
        note = f"{len(paired.cases)} paired cases; a test and an interval need {MIN_CASES}"
        p = None
    first, second, difference = (
        float(values.mean()) if len(values) else math.nan
        for values in (paired.first, paired.second, paired.differences)
    )
    return Comparison(
        dataset=dataset,
        measure=measure,
        regime=regime,
        other=other,
        cases=len(paired.cases),
        measurements=paired.measurements,
        unpaired=paired.unpaired,
        mean=first,
        other_mean=second,
        difference=difference,
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        p=p,
        p_holm=None,
        note=note,
    )


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p-values of comparisons that are made together (Holm, 1979).

    Args:
        comparisons: the family; those without a p-value do not count.

    Returns:
        The same comparisons with `p_holm`.
    """
    tested = sorted((c.p, index) for index, c in enumerate(comparisons) if c.p is not None)
    corrected: dict[int, float] = {}
    highest = 0.0
    for rank, (p, index) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        corrected[index] = highest
    return [replace(c, p_holm=corrected.get(index)) for index, c in enumerate(comparisons)]
