"""Table 2: counts that add up, and the paper's cells from its own arithmetic."""

from __future__ import annotations

import pytest

from lora_ext.networks.parameters import PAPER_TABLE_2
from lora_ext.study.costs import channel_count, paper_arithmetic, table2, write_table2
from lora_ext.study.statistics import by_regime


def cells_of(results, dataset):
    """Return table 2 as title -> cells, the small rows under `<title>/paper` and so on."""
    rows, last = {}, ""
    for line in table2(dataset, by_regime(results)[dataset]).splitlines()[2:]:
        title, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
        small = title.startswith("<sub>")
        last = last if small else title
        rows[f"{last}/{title[5:-6]}" if small else last] = cells
    return rows


def number(cell):
    return float(cell.removeprefix("<sub>").removesuffix("</sub>").split()[0].replace(",", ""))


def test_the_papers_way_of_counting_gives_the_papers_cells(make_results):
    rows = cells_of(make_results(("brats",), cases=1), "brats")
    for title in ("**Total** (M)", "**Trainable** (M)", "**Non-trainable** (M)"):
        paper, again = rows[f"{title}/paper"], rows[f"{title}/paper's way"]
        for cell, own in list(zip(paper, again, strict=True))[:6]:
            assert number(own) == pytest.approx(number(cell), abs=0.015)
    column = (2, 4)  # frozen, LoRA-32
    assert [number(rows["**Trainable** (M)/paper"][i]) for i in column] == [54.58, 62.84]
    assert PAPER_TABLE_2["brats_lora32"][1] == 62.84


def test_our_totals_count_each_parameter_once(make_results):
    rows = cells_of(make_results(("brats",), ("lora32",), cases=1), "brats")
    assert rows["**Total** (M)"] == ["151.157"]
    assert rows["**Trainable** (M)"] == ["62.835 (41.57 %)"]
    assert rows["**Non-trainable** (M)"] == ["88.322 (58.43 %)"]
    parts = ("Encoder (M)", "Fusion + decoder (M)", "Adapters (M)")
    assert sum(number(rows[part][0]) for part in parts) == pytest.approx(151.157, abs=2e-3)


def test_seconds_have_a_spread_and_memory_its_peak(make_results):
    rows = cells_of(make_results(("prostatex",), ("frozen", "segresnet"), cases=1), "prostatex")
    assert rows["Seconds, training"] == ["100.5 ± 0.7", "100.5 ± 0.7"]
    assert rows["Seconds, evaluating"] == ["9.5 ± 0.0", "9.5 ± 0.0"]
    assert rows["Peak memory (MB)"] == ["12,347", "12,347"]
    assert rows["Encoder (M)"][1] == "–"  # noqa: RUF001
    assert "**Total** (M)/paper" not in rows  # the paper has no Table 2 for ProstateX


def test_what_was_not_measured_is_a_dash(make_run):
    run = make_run("brats", "frozen") | {"peak_memory_mb": None, "parameters": None, "seconds": {}}
    rows = cells_of({"runs": [run]}, "brats")
    assert rows["**Total** (M)"] == rows["Seconds, training"] == ["–"]  # noqa: RUF001
    assert rows["Peak memory (MB)"] == rows["Encoder (M)"] == ["–"]  # noqa: RUF001


@pytest.mark.parametrize(
    ("knobs", "bundle", "channels"),
    [
        ({}, "bundles/brats_lora32", 4),
        ({}, "prostatex_frozen", 2),
        ({"modalities": ["FLAIR", "t1gd"]}, "brats_lora32", 2),
        ({"modalities": '["FLAIR", "t1gd", "T2w"]'}, "brats_lora32", 3),
        ({"modalities": "FLAIR"}, "brats_lora32", None),
        ({}, "mine", None),
    ],
)
def test_channels_come_from_the_knobs_or_the_bundle(knobs, bundle, channels):
    assert channel_count({"knobs": knobs, "bundle": bundle}) == channels


def test_a_reference_has_no_adapters_to_count_twice(make_run):
    assert paper_arithmetic(make_run("brats", "segresnet")) is None
    assert (
        paper_arithmetic(make_run("brats", "lora16"))["non_trainable"] == 88_322_304 + 3 * 1_032_192
    )


@pytest.mark.parametrize(("encoder", "said"), [(88_322_304, False), (12_345, True)])
def test_a_network_of_another_size_than_the_papers_is_named(make_run, tmp_path, encoder, said):
    run = make_run("brats", "lora32")
    run["parameters"]["encoder"] = encoder
    text = write_table2({"runs": [run]}, tmp_path / "t.md").read_text(encoding="utf-8")
    assert ("a network of another size than the paper's" in text) == said
