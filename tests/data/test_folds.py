"""The k-fold split: disjoint, complete, balanced and the same everywhere."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from lora_ext.data.folds import draw_training_cases, split_fold

NAMES = [f"BRATS_{i:03d}" for i in range(1, 24)]


@pytest.mark.parametrize("num_folds", [2, 5, 23])
@pytest.mark.parametrize("seed", [0, 7])
def test_validation_sets_partition_the_cases_in_sizes_that_differ_by_at_most_one(num_folds, seed):
    folds = [split_fold(NAMES, fold, num_folds, seed)[1] for fold in range(num_folds)]
    assert sorted(name for fold in folds for name in fold) == NAMES
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_no_case_trains_and_validates_in_one_fold():
    for fold in range(5):
        training, validation = split_fold(NAMES, fold, 5, seed=0)
        assert not set(training) & set(validation)
        assert sorted(training + validation) == NAMES


def test_the_order_of_the_names_does_not_matter():
    shuffled = random.Random(3).sample(NAMES, len(NAMES))
    assert split_fold(shuffled, 1, 5, seed=0) == split_fold(NAMES, 1, 5, seed=0)


def test_the_split_stays_the_one_that_earlier_runs_used():
    # default_rng(0).permutation(5) is 2, 4, 3, 0, 1; cut in two: positions 2, 4, 3 and 0, 1.
    assert split_fold("abcde", 0, 2, seed=0) == (["a", "b"], ["c", "d", "e"])
    assert split_fold("abcde", 1, 2, seed=0) == (["c", "d", "e"], ["a", "b"])


def test_another_seed_gives_another_split():
    splits = {tuple(split_fold(NAMES, 0, 5, seed)[1]) for seed in range(5)}
    assert len(splits) == 5


@pytest.mark.parametrize(
    ("fold", "num_folds", "words"),
    [
        (-1, 5, "fold: expected 0 to 4, got -1"),
        (5, 5, "fold: expected 0 to 4, got 5"),
        (0, 1, "num_folds: expected 2 to 23, the number of cases, got 1"),
        (0, 24, "num_folds: expected 2 to 23, the number of cases, got 24"),
    ],
)
def test_a_fold_out_of_range_is_refused_with_the_range(fold, num_folds, words):
    with pytest.raises(ValueError, match=words):
        split_fold(NAMES, fold, num_folds, seed=0)


def test_a_repeated_name_is_refused_by_name():
    with pytest.raises(ValueError, match="expected each case name once, got b"):
        split_fold(["a", "b", "c", "b"], 0, 2, seed=0)


def test_fewer_training_cases_are_part_of_more_and_all_are_all():
    draws = [draw_training_cases(NAMES, count, seed=3) for count in range(1, len(NAMES) + 1)]
    for count, (fewer, more) in enumerate(pairwise(draws), start=1):
        assert len(fewer) == count
        assert set(fewer) < set(more)
        assert fewer == sorted(fewer)
    assert draws[-1] == draw_training_cases(NAMES, None, seed=3) == NAMES


def test_training_cases_depend_on_the_seed_and_not_on_the_order():
    shuffled = random.Random(3).sample(NAMES, len(NAMES))
    assert draw_training_cases(shuffled, 8, seed=0) == draw_training_cases(NAMES, 8, seed=0)
    assert len({tuple(draw_training_cases(NAMES, 8, seed)) for seed in range(5)}) == 5


def test_the_draw_stays_the_one_that_earlier_runs_used():
    assert draw_training_cases("abcdefgh", 3, seed=0) == ["b", "d", "h"]


@pytest.mark.parametrize("count", [0, -1, 24, 2.0, "8", True])
def test_a_number_of_training_cases_out_of_range_is_refused_with_the_range(count):
    words = f"training_cases: expected 1 to 23, .*got {count!r}"
    with pytest.raises(ValueError, match=words):
        draw_training_cases(NAMES, count, seed=0)
