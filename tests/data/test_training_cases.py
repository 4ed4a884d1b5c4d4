"""Few training cases: part of the fold's, and nothing else of the fold changes."""

from __future__ import annotations

import pytest

from lora_ext.data.cases import fold_cases
from lora_ext.phantoms import write_phantoms

REGIONS = {"TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}
FOLD = {"fold": 0, "num_folds": 3, "split_seed": 0}


@pytest.fixture
def fold(tmp_path):
    """A function that lists a fold of six phantoms, four of which train, with so many of them."""
    write_phantoms("brats", tmp_path, cases=6, size=(32, 32, 16), test_cases=1)

    def fold(training_cases=None):
        return fold_cases(tmp_path, ["FLAIR"], REGIONS, **FOLD, training_cases=training_cases)

    return fold


def names(items):
    return {item["case"] for item in items}


def test_fewer_training_cases_leave_the_validation_cases_alone(fold):
    one, two, four, everything = fold(1), fold(2), fold(4), fold()
    assert one["validation"] == two["validation"] == everything["validation"]
    assert [len(cases["training"]) for cases in (one, two, everything)] == [1, 2, 4]
    assert names(one["training"]) < names(two["training"]) < names(everything["training"])
    assert four == everything


def test_more_training_cases_than_the_fold_has_are_refused(fold):
    with pytest.raises(ValueError, match="training_cases: found 5; allowed are 1 to 4"):
        fold(5)


def test_a_bad_file_of_a_training_case_that_is_not_kept_does_not_matter(fold, tmp_path):
    kept = fold(2)
    unused = names(fold()["training"]) - names(kept["training"])
    (tmp_path / "imagesTr" / f"{unused.pop()}.nii.gz").write_bytes(b"torn")
    assert fold(2) == kept
    with pytest.raises(ValueError, match="found a damaged"):
        fold()
