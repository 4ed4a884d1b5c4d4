"""Table 1 read back from its markdown gives the numbers that went in."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lora_ext.study.paper import PAPER_TABLE_1
from lora_ext.study.tables import table1, write_table1, write_tables

CELL = re.compile(
    r"(?P<mark>\*\*|<u>)?(?P<mean>\d\.\d{4})(?:\*\*|</u>)?"
    r"(?: ± (?P<std>\d\.\d{4}))?(?: \((?P<arrow>[↑↓]?)(?P<change>\d+\.\d)\))?"
)


def rows_of(text):
    """Return the body of each markdown table: lists of cells."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if ":--" not in row]


def test_every_cell_read_back_is_mean_spread_and_change(make_results):
    results = make_results(("brats",))
    by_name = {}
    for run in results["runs"]:
        by_name.setdefault(run["regime"], []).append(run["summary"])
    rows = rows_of(
        table1("brats", {n: [r for r in results["runs"] if r["regime"] == n] for n in by_name})
    )
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
    results = make_results(("prostatex",), ("baseline", "lora32", "segresnet"))
    regimes = {n: [r for r in results["runs"] if r["regime"] == n] for n in ("baseline", "lora32")}
    rows = rows_of(table1("prostatex", regimes))
    paper = [rows[i + 1] for i, row in enumerate(rows) if row[0] in ("**PZ**", "**Pooled**")]
    assert paper[0][1:] == ["<sub>0.5412</sub>", "<sub>0.5877 (↑8.6)</sub>"]
    assert paper[1][1:] == ["<sub>0.6369</sub>", "<sub>0.6522 (↑2.4)</sub>"]
    assert PAPER_TABLE_1["prostatex"]["pooled_dice"]["lora32"] == 0.6522
    assert not any(row[0].startswith("<sub>") for row in rows_of(table1("liver", regimes)))


def test_a_single_run_has_no_spread_and_a_single_regime_no_mark(make_results):
    results = make_results(("brats",), ("lora32",), (0,))
    rows = rows_of(table1("brats", {"lora32": results["runs"]}))
    assert all(re.fullmatch(r"\d\.\d{4}|<sub>.*</sub>", row[1]) for row in rows[1:])


def test_a_reference_that_wins_is_bold_and_the_best_regime_underlined(make_results):
    results = make_results(("brats",), ("baseline", "lora32", "segresnet"), (0,))
    for run in results["runs"]:
        run["summary"]["pooled_dice"] = {"baseline": 0.7, "lora32": 0.8}.get(run["regime"], 0.9)
    row = rows_of(table1("brats", {r["regime"]: [r] for r in results["runs"]}))[-2]
    assert row == ["**Pooled**", "0.7000", "<u>0.8000</u> (↑14.3)", "**0.9000** (↑28.6)"]


def test_the_page_names_runs_cases_settings_and_failures(make_results, fail, tmp_path):
    results = make_results()
    results["runs"][9] = fail(results["runs"][9])
    text = write_table1(results, tmp_path / "table1.md").read_text(encoding="utf-8")
    assert "Runs of LoRA-32: 1 (seed 0, fold 0), 5 cases per run, 5 distinct cases." in text
    assert "Runs per column: 2 (seeds 0, 1, fold 0), 5 cases per run" in text
    assert "`epochs` 20; `dataset_dir` data/brats." in text
    failed = "- `brats_lora32`, seed 1, fold 0: `RuntimeError: out of memory | at step 3`"
    assert failed in text.splitlines()
    assert "**Runs without a result** (1)" in text


def test_the_legend_says_by_which_rules(make_results, tmp_path):
    text = write_table1(make_results(cases=1), tmp_path / "t.md").read_text(encoding="utf-8")
    for rule in (
        "threshold of 0.5",
        "sample standard deviation over seeds and folds",
        "one Dice over all voxels of all regions and all cases",
        "Dice is 1 when the prediction is empty too, else 0",
        "**not comparable**",
        "Reference networks",
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


def test_runs_that_all_failed_are_still_reported(make_run, fail, tmp_path):
    failed = fail(make_run("brats", "lora32"), "line one\nline `two`")
    failed["seconds"] = {}
    for path in write_tables({"runs": [failed]}, tmp_path)[:3]:
        text = path.read_text(encoding="utf-8")
        assert "No run has finished." in text
        assert "- `brats_lora32`, seed 0, fold 0: `line one line 'two'`" in text
