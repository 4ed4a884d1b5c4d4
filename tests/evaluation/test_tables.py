"""What was measured comes back from CSV and JSON; undefined values are empty and null."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from lora_ext.evaluation import CaseMetrics, RegionMetrics, summary
from lora_ext.evaluation.tables import text_table, write_csv, write_json

CASES = [
    CaseMetrics(
        "BRATS_001",
        (1.0, 1.0, 2.0),
        {
            "TC": RegionMetrics(500, 1000, 1000, 0.002, 4.25),
            "WT": RegionMetrics(1500, 2000, 2000, 0.002, 1.0 / 3.0),
        },
    ),
    CaseMetrics(
        "BRATS_002, left",
        (1.0, 1.0, 2.0),
        {
            "TC": RegionMetrics(0, 10, 0, 0.002, math.nan),
            "WT": RegionMetrics(7, 7, 7, 0.002, 0.0),
        },
    ),
]
REGIONS = {"TC": [2, 3], "WT": [1, 2, 3]}
COLUMNS = [
    "case", "region", "dice", "hd95_mm", "predicted_ml", "truth_ml", "intersection_voxels",
    "predicted_voxels", "truth_voxels", "case_mean_dice", "case_pooled_dice",
]  # fmt: skip


def test_the_csv_has_one_row_per_case_and_region_with_the_measured_values(tmp_path: Path) -> None:
    write_csv(tmp_path / "cases.csv", CASES)
    with (tmp_path / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["region"]) for row in rows] == [
        (case.case, name) for case in CASES for name in REGIONS
    ]
    assert list(rows[0]) == COLUMNS
    for row, case in zip(rows, [CASES[0], CASES[0], CASES[1], CASES[1]], strict=True):
        region = case.regions[row["region"]]
        assert float(row["dice"]) == region.dice
        assert row["hd95_mm"] == ("" if math.isnan(region.hd95_mm) else str(region.hd95_mm))
        assert float(row["truth_ml"]) == region.truth_ml
        assert int(row["intersection_voxels"]) == region.intersection_voxels
        assert float(row["case_mean_dice"]) == case.mean_dice
        assert float(row["case_pooled_dice"]) == case.pooled_dice


def test_the_json_holds_summary_cases_regions_and_the_rule(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", CASES, REGIONS, "a <good> encoder")

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    content = json.loads(text, parse_constant=refuse)
    assert list(content) == [
        "encoder",
        "seen_in_training",
        "regions",
        "empty_rule",
        "summary",
        "cases",
    ]
    assert content["encoder"] == "a <good> encoder"
    assert content["regions"] == REGIONS
    assert "Dice is 1 when the prediction is empty too" in content["empty_rule"]
    assert content["summary"]["pooled_dice"] == summary(CASES)["pooled_dice"]
    assert content["summary"]["regions"]["TC"]["hd95_undefined"] == 1
    assert content["summary"]["regions"]["TC"]["hd95_mm_std"] is None
    assert content["cases"][0]["regions"]["WT"]["hd95_mm"] == 1.0 / 3.0
    assert content["cases"][1]["regions"]["TC"]["hd95_mm"] is None
    assert content["cases"][1]["spacing_mm"] == [1.0, 1.0, 2.0]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", CASES, REGIONS)
    before = (tmp_path / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match="no case"):
        write_json(tmp_path / "metrics.json", [], REGIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert (tmp_path / "metrics.json").read_bytes() == before


def test_the_table_is_aligned_and_tells_what_is_undefined() -> None:
    lines = text_table(CASES).splitlines()
    assert lines[0].split() == ["case", "TC", "WT", "mean", "pooled"]
    assert lines[1].split() == ["BRATS_001", "0.500", "0.750", "0.625", "0.667"]
    assert lines[2].split() == ["BRATS_002,", "left", "0.000", "1.000", "0.500", "0.583"]
    assert lines[3].split() == ["Dice", "0.250", "0.875", "0.562", "0.666"]
    assert lines[4].split()[:4] == ["HD95", "mm", "4.2", "0.2"]
    assert lines[4].endswith("(undefined: TC 1)")
    assert len({len(line) for line in lines[:4]}) == 1


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_names_from_files_are_no_formulas_in_a_spreadsheet(tmp_path, start):
    name = f"{start}cmd|' /C calc'!A0"
    write_csv(tmp_path / "cases.csv", [CaseMetrics(name, (1.0, 1.0, 1.0), CASES[0].regions)])
    with (tmp_path / "cases.csv").open(encoding="utf-8", newline="") as file:
        (first, *_) = csv.DictReader(file)
    assert first["case"] == f"'{name}"
    assert float(first["dice"]) == 2 * 500 / 2000
