"""The k-fold split of a task's labelled cases into training and validation.

MONAI's ``partition_dataset`` and scikit-learn's ``KFold`` shuffle by another generator, so that
they would draw other folds than those of earlier runs.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

logger = logging.getLogger(__name__)


def split_cases(
    given: Mapping[str, int | None], fold: int, num_folds: int, seed: int
) -> tuple[list[str], list[str]]:
    """Split cases by the folds that their data set gives them, else by `split_fold`.

    Args:
        given: the fold in which each case validates; None for a case that never does. Where that is
            every case, the folds are drawn.
        fold: which fold validates.
        num_folds: number of folds to draw.
        seed: seed of the draw.

    Returns:
        The training names and the validation names, both sorted.

    Raises:
        ValueError: a fold that the data set does not give, one without a training case, or see
            `split_fold`.
    """
    folds = sorted({number for number in given.values() if number is not None})
    if not folds:
        return split_fold(given, fold, num_folds, seed)
    validation = sorted(name for name, number in given.items() if number == fold)
    training = sorted(given.keys() - set(validation))
    if not validation or not training:
        raise ValueError(
            f"fold: expected one of {', '.join(map(str, folds))}, which the data set gives, with "
            f"other cases to train on, got {fold}"
        )
    logger.info(
        "the data set gives the folds: fold %d of %s validates (%d of %d cases); num_folds and "
        "split_seed draw none",
        *(fold, ", ".join(map(str, folds)), len(validation), len(given)),
    )
    return training, validation


def split_fold(
    names: Iterable[str], fold: int, num_folds: int, seed: int
) -> tuple[list[str], list[str]]:
    """Split case names into the training and the validation names of one fold.

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
        ValueError: a repeated name, fewer than two, or a fold or number of folds out of range.
    """
    ordered = sorted(names)
    repeated = [name for name, count in Counter(ordered).items() if count > 1]
    if repeated:
        raise ValueError(f"expected each case name once, got {', '.join(repeated)} more than once")
    if len(ordered) < 2:
        raise ValueError(
            "expected at least 2 cases, one to train on and one to validate on, got "
            f"{len(ordered)}{''.join(f' ({name})' for name in ordered)}"
        )
    if not 2 <= num_folds <= len(ordered):
        raise ValueError(
            f"num_folds: expected 2 to {len(ordered)}, the number of cases, got {num_folds}"
        )
    if not 0 <= fold < num_folds:
        raise ValueError(f"fold: expected 0 to {num_folds - 1}, got {fold}")
    shuffled = np.random.default_rng(seed).permutation(len(ordered))
    validation = {ordered[i] for i in np.array_split(shuffled, num_folds)[fold]}
    return [name for name in ordered if name not in validation], sorted(validation)


def draw_training_cases(names: Iterable[str], count: int | None, seed: int) -> list[str]:
    """Draw some of a fold's training cases, to study how few are enough.

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
            f"training_cases: expected 1 to {len(ordered)}, the fold's training cases, or None for "
            f"all of them, got {count!r}"
        )
    # A stream of its own: with the split's, the draw would follow from which cases validate.
    shuffled = np.random.default_rng([seed, 1]).permutation(len(ordered))
    return sorted(ordered[i] for i in shuffled[:count])
