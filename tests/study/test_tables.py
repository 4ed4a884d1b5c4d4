"""Tables 1 and 2 read back from their markdown give the numbers that went in."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from lora_ext.networks.parameters import PAPER_TABLE_2
from lora_ext.study import tables
from lora_ext.study.paper import PAPER_TABLE_1
from lora_ext.study.results import dice_frame, run_frame
from lora_ext.study.tables import change, paper_arithmetic, write_tables

CELL = re.compile(
    r"(?P<mark>\*\*|<u>)?(?P<mean>\d\.\d{4})(?:\*\*|</u>)?"
    r"(?: ± (?P<std>\d\.\d{4}))?(?: \((?P<arrow>[↑↓]?)(?P<change>\d+\.\d)\))?"
)


def rows_of(text):
    """Return the body of each markdown table: lists of cells."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if not row[0].startswith(":--")]


def table1(results):
    return rows_of(tables.table1(dice_frame(results), run_frame(results)))


def test_every_cell_read_back_is_mean_spread_and_change(make_results):
    results = make_results(("brats",))
    by_name = {}
    for run in results["runs"]:
        by_name.setdefault(run["regime"], []).append(run["summary"])
    rows = table1(results)
    assert rows[0][1:] == [
        "Baseline", "Finetune", "Frozen", "LoRA-16", "LoRA-32", "LoRA-64", "*SegResNet*"
    ]  # fmt: skip
    titles = {"**Mean of regions**": "mean_dice", "**Pooled**": "pooled_dice"}
    checked = 0
    for title, *cells in rows[1:]:
        if title == "<sub>paper</sub>":
            continue
        key = titles.get(title, title.strip("*"))
        values = {
            name: np.array([s[key] if key in s else s["regions"][key]["dice"] for s in own])
            for name, own in by_name.items()
        }
        for (name, own), cell in zip(values.items(), cells, strict=True):
            found = CELL.fullmatch(cell)
            assert float(found["mean"]) == pytest.approx(own.mean(), abs=5.1e-5)
            assert float(found["std"]) == pytest.approx(own.std(ddof=1), abs=5.1e-5)
            if name != "baseline":
                percent = 100 * (own.mean() / values["baseline"].mean() - 1)
                sign = {"↑": 1, "↓": -1, "": 0}[found["arrow"]]
                assert sign * float(found["change"]) == pytest.approx(percent, abs=0.051)
            checked += 1
        marked = {
            CELL.fullmatch(cell)["mark"]: float(CELL.fullmatch(cell)["mean"]) for cell in cells
        }
        regimes = sorted((round(own.mean(), 4) for n, own in values.items() if n != "segresnet"))
        assert (marked["**"], marked["<u>"]) == (regimes[-1], regimes[-2])
    assert checked == 5 * 7


def test_the_papers_cells_stand_below_ours(make_results):
    results = make_results(("prostatex",), ("baseline", "lora32"))
    rows = table1(results)
    paper = [rows[i + 1] for i, row in enumerate(rows) if row[0] in ("**PZ**", "**Pooled**")]
    assert paper[0][1:] == ["<sub>0.5412</sub>", "<sub>0.5877 (↑8.6)</sub>"]
    assert paper[1][1:] == ["<sub>0.6369</sub>", "<sub>0.6522 (↑2.4)</sub>"]
    assert PAPER_TABLE_1["prostatex"]["pooled_dice"]["lora32"] == 0.6522
    for run in results["runs"]:
        run["dataset"] = "liver"
    assert not any(row[0].startswith("<sub>") for row in table1(results))


def test_a_single_run_has_no_spread_and_a_single_regime_no_mark(make_results):
    results = make_results(("brats",), ("lora32",), (0,))
    rows = table1(results)
    assert all(re.fullmatch(r"\d\.\d{4}|<sub>.*</sub>", row[1]) for row in rows[1:])


def test_a_reference_that_wins_is_bold_and_the_best_regime_underlined(make_results):
    results = make_results(("brats",), ("baseline", "lora32", "segresnet"), (0,))
    for run in results["runs"]:
        run["summary"]["pooled_dice"] = {"baseline": 0.7, "lora32": 0.8}.get(run["regime"], 0.9)
    row = table1(results)[-2]
    assert row == ["**Pooled**", "0.7000", "<u>0.8000</u> (↑14.3)", "**0.9000** (↑28.6)"]


def test_the_page_names_runs_cases_settings_and_failures(make_results, fail, tmp_path):
    results = make_results()
    results["runs"][9] = fail(results["runs"][9])
    text = write_tables(results, tmp_path)[0].read_text(encoding="utf-8")
    assert "Runs of LoRA-32: 1 (seed 0, fold 0), 5 cases per run, 5 distinct cases." in text
    assert "Runs per column: 2 (seeds 0, 1, fold 0), 5 cases per run" in text
    assert "`epochs 20`, `dataset_dir data/brats`." in text
    assert "started from `encoder.safetensors (sha256 0123456789ab)`." in text
    failed = "- `brats_lora32`, seed 1, fold 0: `RuntimeError: out of memory | at step 3`"
    assert failed in text.splitlines()
    assert "**Runs without a result** (1)" in text


def test_the_legend_says_by_which_rules(make_results, tmp_path):
    text = write_tables(make_results(cases=1), tmp_path)[0].read_text(encoding="utf-8")
    text = " ".join(text.split())
    for rule in (
        "threshold of 0.5",
        "sample standard deviation over seeds and folds",
        "the folds are the same for all seeds and follow the setting `split_seed`",
        "one Dice over all voxels of all regions and all cases, 2 TP / (2 TP + FP + FN)",
        "Dice is 1 when the prediction is empty too, else 0",
        "**not comparable**",
        "Reference networks",
        "*(random encoder)* marks runs that started from random weights",
    ):
        assert rule in text


@pytest.mark.parametrize(
    ("datasets", "regimes", "seeds", "cases"),
    [
        (("brats",), ("lora32",), (0,), 1),
        (("prostatex",), ("segresnet",), (0, 1), 2),
        (("brats", "prostatex"), ("frozen", "lora64"), (0,), 7),
        ((), (), (), 1),
    ],
)
def test_any_subset_writes_all_four_files(make_results, tmp_path, datasets, regimes, seeds, cases):
    files = write_tables(make_results(datasets, regimes, seeds, cases), tmp_path / "out")
    names = ["table1.md", "table2.md", "comparisons.md", "comparisons.json"]
    assert [path.name for path in files] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    for path in files[:3]:
        text = path.read_text(encoding="utf-8")
        assert "nan" not in text.lower().split()
        assert ("No run has finished." in text) == (not datasets)


def test_a_regime_that_started_at_random_is_marked_on_every_page(make_results, tmp_path):
    results = make_results(("brats",), ("baseline", "finetune", "lora32"))
    for run in results["runs"]:
        if run["regime"] == "lora32":
            run["encoder"] = "random"
    for path in write_tables(results, tmp_path)[:3]:
        text = path.read_text(encoding="utf-8")
        heads = [cell for row in rows_of(text) for cell in row]
        assert "LoRA-32 (random encoder)" in heads
        assert "LoRA-32" not in heads
        assert "LoRA-32 started from random weights." in text


def test_a_change_has_an_arrow_unless_it_rounds_to_nothing():
    percents = (1.94, -0.06, 0.04, -0.04, 10.0)
    shown = [change(1 + percent / 100, 1.0) for percent in percents]
    assert shown == ["(↑1.9)", "(↓0.1)", "(0.0)", "(0.0)", "(↑10.0)"]
    assert change(0.5, 0.0) == change(0.5, math.nan) == ""


def costs(results):
    """Return table 2 as title -> cells, the small rows under `<title>/paper` and so on."""
    rows, last = {}, ""
    for title, *cells in rows_of(tables.table2(run_frame(results), results["runs"]))[1:]:
        small = title.startswith("<sub>")
        last = last if small else title
        rows[f"{last}/{title[5:-6]}" if small else last] = cells
    return rows


def number(cell):
    return float(cell.removeprefix("<sub>").removesuffix("</sub>").split()[0].replace(",", ""))


def test_the_papers_way_of_counting_gives_the_papers_cells(make_results):
    rows = costs(make_results(("brats",), cases=1))
    for title in ("**Total** (M)", "**Trainable** (M)", "**Non-trainable** (M)"):
        paper, again = rows[f"{title}/paper"], rows[f"{title}/paper's way"]
        for cell, own in list(zip(paper, again, strict=True))[:6]:
            assert number(own) == pytest.approx(number(cell), abs=0.015)
    column = (2, 4)  # frozen, LoRA-32
    assert [number(rows["**Trainable** (M)/paper"][i]) for i in column] == [54.58, 62.84]
    assert PAPER_TABLE_2["brats_lora32"][1] == 62.84


def test_our_totals_count_each_parameter_once(make_results):
    rows = costs(make_results(("brats",), ("lora32",), cases=1))
    assert rows["**Total** (M)"] == ["151.157"]
    assert rows["**Trainable** (M)"] == ["62.835 (41.57 %)"]
    assert rows["**Non-trainable** (M)"] == ["88.322 (58.43 %)"]
    parts = ("Encoder (M)", "Fusion + decoder (M)", "Adapters (M)")
    assert sum(number(rows[part][0]) for part in parts) == pytest.approx(151.157, abs=2e-3)


def test_seconds_have_a_spread_and_memory_its_peak(make_results):
    rows = costs(make_results(("prostatex",), ("frozen", "segresnet"), cases=1))
    assert rows["Seconds, training"] == ["100.5 ± 0.7", "100.5 ± 0.7"]
    assert rows["Seconds, evaluating"] == ["9.5 ± 0.0", "9.5 ± 0.0"]
    assert rows["Peak memory (MB)"] == ["12,347", "12,347"]
    assert rows["Encoder (M)"][1] == "–"  # noqa: RUF001
    assert "**Total** (M)/paper" not in rows  # the paper has no Table 2 for ProstateX


def test_what_was_not_measured_is_a_dash(make_run):
    run = make_run("brats", "frozen") | {"peak_memory_mb": None, "parameters": None, "seconds": {}}
    rows = costs({"runs": [run]})
    assert rows["**Total** (M)"] == rows["Seconds, training"] == ["–"]  # noqa: RUF001
    assert rows["Peak memory (MB)"] == rows["Encoder (M)"] == ["–"]  # noqa: RUF001


@pytest.mark.parametrize(
    ("change", "channels"),
    [
        ({}, 4),
        ({"bundle": "prostatex_frozen"}, 2),
        ({"knobs": {"modalities": ["FLAIR", "t1gd"]}}, 2),
        ({"knobs": {"modalities": "FLAIR"}}, None),
        ({"bundle": "mine"}, None),
    ],
)
def test_the_papers_arithmetic_counts_all_adapters_but_one_twice(make_run, change, channels):
    run = make_run("brats", "lora16")
    found = paper_arithmetic(run | change)
    assert bool(found) == (channels is not None)
    if channels:
        again = run["parameters"]["adapters"] // channels * (channels - 1)
        assert found["non_trainable"] == 88_322_304 + again
        assert found["total"] == run["parameters"]["total"] + again


def test_a_reference_has_no_adapters_to_count_twice(make_run):
    assert paper_arithmetic(make_run("brats", "segresnet")) == {}
