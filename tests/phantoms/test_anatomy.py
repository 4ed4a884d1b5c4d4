"""Random generators of a case."""

from __future__ import annotations

import numpy as np
import pytest

from lora_ext.phantoms import ANATOMIES
from lora_ext.phantoms.anatomy import case_generators


def test_generators_differ_between_seeds_cases_and_purposes():
    draws = {
        rng.random() for seed in (0, 1) for case in (1, 2) for rng in case_generators(seed, case)
    }
    assert len(draws) == 8


def test_generators_of_a_case_repeat():
    first, second = (case_generators(4, 2) for _ in range(2))
    assert [rng.random() for rng in first] == [rng.random() for rng in second]


@pytest.mark.parametrize("task", sorted(ANATOMIES))
def test_each_anatomy_draws_as_many_channels_and_labels_as_it_names(task):
    anatomy = ANATOMIES[task]
    image, label = anatomy.draw(0, 1, (32, 32, 16))
    assert len(image) == len(anatomy.channels)
    assert label.max() < len(anatomy.labels)
    assert np.array_equal(anatomy.draw(0, 1, (32, 32, 16))[0], image)
