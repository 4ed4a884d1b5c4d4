"""The k-fold split of a task's labelled cases into training and validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np


def split_fold(
    names: Iterable[str], fold: int, num_folds: int, seed: int
) -> tuple[list[str], list[str]]:
    """Splits case names into the training and the validation names of one fold.

    The sorted names are shuffled by `seed` and cut into `num_folds` validation sets that are
    disjoint, cover every case, and differ in size by at most one. The order of `names` does not
    matter, so the split is the same on every machine.

    Args:
        names: the case names, each once.
        fold: which fold validates, 0 .. num_folds - 1.
        num_folds: number of folds, from 2 to the number of cases.
        seed: seed of the shuffle.

    Returns:
        The training names and the validation names, both sorted.

    Raises:
        ValueError: a repeated name, or a fold or number of folds out of range.
    """
    names = list(names)
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise ValueError(f"found the case names {', '.join(repeated)} more than once; allowed once")
    if not 2 <= num_folds <= len(names):
        raise ValueError(
            f"num_folds: found {num_folds}; allowed are 2 to {len(names)}, the number of cases"
        )
    if not 0 <= fold < num_folds:
        raise ValueError(f"fold: found {fold}; allowed are 0 to {num_folds - 1}")
    ordered = sorted(names)
    shuffled = np.random.default_rng(seed).permutation(len(ordered))
    validation = {ordered[i] for i in np.array_split(shuffled, num_folds)[fold]}
    return [name for name in ordered if name not in validation], sorted(validation)


def draw_training_cases(names: Iterable[str], count: int | None, seed: int) -> list[str]:
    """Draws some of a fold's training cases, to study how few are enough.

    The draw is the beginning of one shuffle by `seed`, so a smaller draw is part of a larger one.

    Args:
        names: the fold's training cases.
        count: how many to keep; None for all.
        seed: seed of the shuffle.

    Returns:
        The names that are kept, sorted.

    Raises:
        ValueError: `count` is no whole number from 1 to the number of names.
    """
    ordered = sorted(names)
    if count is None:
        return ordered
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(ordered):
        raise ValueError(
            f"training_cases: found {count!r}; allowed are 1 to {len(ordered)}, the fold's "
            "training cases, or None for all of them"
        )
    # A stream of its own: with the split's, the draw would follow from which cases validate.
    shuffled = np.random.default_rng([seed, 1]).permutation(len(ordered))
    return sorted(ordered[i] for i in shuffled[:count])
