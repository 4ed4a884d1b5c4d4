"""What is planned, against nnU-Net's rules worked out by hand, on surveys made up for it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lora_ext.bundles import plan as planning
from lora_ext.bundles.plan import make_plan, plan_roi, plan_spacing
from lora_ext.bundles.settings import check_values
from lora_ext.data.survey import CaseSurvey

KINDS = {"CT": "ct", "PET": "pet", "T1w": "mr"}


def case(number=0, spacing=(1.0, 1.0, 1.0), size=(100, 100, 100), labels=None, **values):
    values = {"CT": np.linspace(-100, 100, 1001), "PET": np.linspace(0, 1000, 1001), **values}
    lowest = {"CT": -1000.0, "PET": 0.0, "T1w": 0.0}
    return CaseSurvey(f"case_{number}", spacing, size, labels or {1: 1000}, values, lowest)


def test_spacing_is_the_median_where_voxels_are_alike():
    cases = [case(spacing=(s, 1.0, 2.0)) for s in (0.5, 0.75, 4.0)]
    assert plan_spacing(cases).value == [0.75, 1.0, 2.0]


def test_coarse_axis_of_few_slices_takes_the_10th_percentile():
    cases = [case(spacing=(1.0, 1.0, s), size=(200, 200, 30)) for s in range(4, 15)]
    assert plan_spacing(cases).value == [1.0, 1.0, 5.0]
    finer = [case(spacing=(1.0, 1.0, s), size=(200, 200, 30)) for s in (0.5, 4, 4, 4, 4)]
    assert plan_spacing(finer).value == [1.0, 1.0, pytest.approx(1.9)]
    many = [case(spacing=(1.0, 1.0, s), size=(200, 200, 100)) for s in range(4, 15)]
    assert plan_spacing(many).value == [1.0, 1.0, 9.0]


@pytest.mark.parametrize(
    ("shape", "roi"),
    [
        ((128, 128, 48), [128, 128, 48]),
        ((100, 40, 10), [112, 48, 16]),
        ((1, 1, 1), [16, 16, 16]),
        ((300, 300, 300), [96, 80, 96]),
    ],
)
def test_window_holds_the_box_or_keeps_its_proportions(shape, roi):
    assert sorted(plan_roi(shape).value) == sorted(roi)
    assert math.prod(n // 16 for n in plan_roi(shape).value) <= 192


def test_windows_come_from_the_values_of_all_cases():
    cases = [case(n) for n in range(5)]
    plan = make_plan(cases, KINDS, {"a": [1]}, {})
    assert plan["ct_window"].value == [-99, 99]  # the percentiles of -100 .. 100, rounded outwards
    assert plan["pet_window"].value == [0, 995]
    assert plan["intensity"].value == KINDS


def test_ct_without_a_range_keeps_the_whole_window():
    flat = [case(n, CT=np.zeros(5)) for n in range(5)]
    plan = make_plan(flat, KINDS, {"a": [1]}, {})
    assert plan["ct_window"].value == [-1000, 1000]
    assert "hardly any range" in plan["ct_window"].reason


def test_what_is_given_is_kept_and_planned_around():
    cases = [case(n) for n in range(5)]
    plan = make_plan(cases, KINDS, {"a": [1]}, {"spacing": [2.0, 2.0, 2.0], "epochs": 7})
    assert plan["spacing"].value == [2.0, 2.0, 2.0]
    assert plan["epochs"].reason == "as given"
    assert plan["roi_size"].value == [64, 64, 64]
    assert (plan["crops_per_case"].value, plan["batch_size"].value) == (1, 4)


@pytest.mark.parametrize("count", [2, 3, 40])
def test_every_plan_passes_the_check_of_the_start(count):
    plan = make_plan([case(n) for n in range(count)], KINDS, {"a": [1]}, {})
    check_values({name: decision.value for name, decision in plan.items()})
    assert all(decision.reason for decision in plan.values())
    assert plan["num_folds"].value == min(5, count)


def test_cache_takes_half_of_the_free_memory(monkeypatch):
    needed = 10 * 100**3 * 4 * 4  # ten cases, three channels and a label, four bytes each
    monkeypatch.setattr(planning, "available_memory", lambda: needed)
    plan = make_plan([case(n) for n in range(10)], KINDS, {"a": [1]}, {})
    assert plan["cache_rate"].value == 0.5


def test_reasons_name_empty_regions_and_channels_whose_values_are_those_of_ct():
    cases = [case(n) for n in range(5)]
    plan = make_plan(cases, KINDS, {"a": [1], "b": [2], "both": [1, 2]}, {})
    assert "a in 5 of 5 cases, median 1 ml; b in 0 of 5 cases;" in plan["regions"].reason
    plan = make_plan(cases, dict.fromkeys(KINDS, "mr"), {"a": [1]}, {})
    assert "CT goes down to -1000: if it is CT, pass --intensity" in plan["intensity"].reason
