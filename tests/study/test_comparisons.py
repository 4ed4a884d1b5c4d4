"""The page and the file of comparisons tell the same, and what they leave out."""

from __future__ import annotations

import json

import pytest

from lora_ext.study.comparisons import compare_all, write_comparisons


@pytest.fixture
def written(make_results, fail, tmp_path):
    """A study with a failed run: its page, its file and what was compared."""
    results = make_results(
        ("brats",), ("baseline", "finetune", "frozen", "lora16", "lora32"), cases=6
    )
    results["runs"][-1] = fail(results["runs"][-1])
    page, data = write_comparisons(results, tmp_path)
    return (
        page.read_text(encoding="utf-8"),
        json.loads(data.read_text("utf-8")),
        compare_all(results),
    )


def test_the_page_read_back_equals_the_file(written):
    page, data, _ = written
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if len(row) == 9 and row[2].isdigit()]
    main = [c for c in data["comparisons"] if c["family"] == "main"]
    assert len(rows) == len(main) == 8
    for row, found in zip(rows, main, strict=True):
        assert int(row[2]) == found["cases"] == 6
        for text, key in zip(row[3:6], ("mean", "other_mean", "difference"), strict=True):
            assert float(text) == pytest.approx(found[key], abs=5.1e-5)
        low, high = map(float, row[6].split(" to "))
        assert (low, high) == pytest.approx((found["low"], found["high"]), abs=5.1e-5)
        assert float(row[7]) == pytest.approx(found["p"], abs=5.1e-4)
        assert float(row[8]) == pytest.approx(found["p_holm"], abs=5.1e-4)


def test_each_table_is_one_family_of_holms_correction(written):
    _, data, _ = written
    for family, size in (("main", 8), ("regions", 24)):
        tests = [c for c in data["comparisons"] if c["family"] == family]
        assert len(tests) == size
        tested = [c for c in tests if c["p"] is not None]
        assert len(tested) > size / 2
        assert all((c["p"] is None) == (c["p_holm"] is None) for c in tests)
        smallest = min(tested, key=lambda c: c["p"])
        assert smallest["p_holm"] == pytest.approx(min(1.0, len(tested) * smallest["p"]))


def test_measurements_without_a_partner_are_counted(written):
    page, data, found = written
    for c in found["brats"]["main"]:
        assert c.unpaired == (6 if "lora32" in (c.regime, c.other) else 0)
    assert "LoRA-32 against Finetune" in page
    assert "6 measurements that only one of the two has are left out" in page
    assert all(c["measurements"] in (6, 12) for c in data["comparisons"])


def test_the_papers_question_is_answered_for_the_main_rank_first(written):
    page, data, _ = written
    assert [a["regime"] for a in data["as_good_as_finetune"]] == ["lora32", "lora16"]
    assert data["margin"] == 0.01
    for answer in data["as_good_as_finetune"]:
        assert f"- {answer['text']}" in page.splitlines()
        assert f"**{answer['verdict'].capitalize()}**" in answer["text"]


def test_one_regime_alone_is_said_to_have_no_partner(make_results, tmp_path):
    page, data = write_comparisons(make_results(("brats",), ("lora32",), (0,)), tmp_path)
    assert "there is nothing to compare" in page.read_text(encoding="utf-8")
    assert json.loads(data.read_text("utf-8"))["comparisons"] == []


def test_regimes_without_a_common_case_give_dashes_and_no_nan(make_run, tmp_path):
    runs = [make_run("brats", "finetune", 0), make_run("brats", "lora32", 1)]
    page, data = write_comparisons({"runs": runs}, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "| LoRA-32 | Finetune | 0 | – | – | – | – | – | – |" in text  # noqa: RUF001
    assert "**Not shown**: 0 paired cases" in text
    assert "NaN" not in data.read_text("utf-8")
