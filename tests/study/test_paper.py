"""The paper's cells, held against the changes that it prints and against its other table."""

from __future__ import annotations

import pytest

from lora_ext.bundles.generator import bundle_facts
from lora_ext.study.paper import PAPER_TABLE_1, TITLES, title

# Table 1's changes against the baseline in %, as printed, in the order finetune, frozen, LoRA-16,
# LoRA-32, LoRA-64.
PRINTED_CHANGES = {
    ("brats", "TC"): (1.9, -2.1, -0.5, 0.6, -2.4),
    ("brats", "WT"): (1.4, 0.7, 0.5, 0.8, 0.2),
    ("brats", "ET"): (0.9, -3.8, -1.7, -1.5, -4.2),
    ("brats", "pooled_dice"): (1.7, 0.2, 0.2, 0.7, -0.5),
    ("prostatex", "PZ"): (10.1, -2.4, 4.3, 8.6, 4.7),
    ("prostatex", "TZ"): (1.9, -0.9, -3.6, -0.8, 1.2),
    ("prostatex", "pooled_dice"): (4.6, -2.3, 1.3, 2.4, 1.9),
}


@pytest.mark.parametrize(("cell", "printed"), PRINTED_CHANGES.items())
def test_the_cells_give_the_changes_that_the_paper_prints(cell, printed):
    row = PAPER_TABLE_1[cell[0]][cell[1]]
    changes = [100 * (value / row["baseline"] - 1) for value in list(row.values())[1:]]
    assert changes == pytest.approx(printed, abs=0.051)


def test_the_rows_are_the_regions_of_the_bundles_and_overall():
    facts = bundle_facts()
    for dataset, rows in PAPER_TABLE_1.items():
        assert list(rows) == [*facts[f"{dataset}_lora32"]["regions"], "pooled_dice"]
        assert all(f"{dataset}_{regime}" in facts for regime in rows["pooled_dice"])


def test_overall_is_not_the_mean_of_the_regions():
    rows = PAPER_TABLE_1["brats"]
    mean = sum(rows[region]["baseline"] for region in ("TC", "WT", "ET")) / 3
    assert mean == pytest.approx(0.793, abs=5e-4)
    assert rows["pooled_dice"]["baseline"] - mean > 0.06


def test_names_that_the_paper_does_not_have_stay_as_they_are():
    names = ("brats", "lora32", "segresnet", "pooled_dice", "liver", "lora8")
    assert [title(name) for name in names] == [
        *("BraTS", "LoRA-32", "SegResNet", "Pooled"),
        *("liver", "lora8"),
    ]
    assert len(set(TITLES.values())) == len(TITLES)
