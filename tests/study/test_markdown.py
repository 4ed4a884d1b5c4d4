"""Markdown as GitHub reads it."""

from __future__ import annotations

import math

from lora_ext.study.markdown import change, dice, p_value, plain, small, table, write_page
from lora_ext.study.statistics import Spread


def test_a_table_has_as_many_cells_in_every_line_and_escapes_bars():
    lines = table(["a", "b"], [["1", "x|y"], ["2", "z\nw"]]).splitlines()
    assert lines == ["| a | b |", "| :-- | --: |", "| 1 | x\\|y |", "| 2 | z w |"]


def test_dice_has_four_decimals_a_mark_and_a_spread():
    assert dice(Spread.of([0.8, 0.9]), 1) == "**0.8500** ± 0.0707"
    assert dice(Spread.of([0.8]), 2) == "<u>0.8000</u>"
    assert dice(Spread.of([])) == "–"  # noqa: RUF001


def test_a_change_has_an_arrow_unless_it_rounds_to_nothing():
    assert [change(value) for value in (1.94, -0.06, 0.04, -0.04, math.nan)] == [
        "(↑1.9)",
        "(↓0.1)",
        "(0.0)",
        "(0.0)",
        "",
    ]


def test_p_values_are_never_printed_as_zero():
    assert [p_value(p) for p in (0.0412, 0.00001, None)] == ["0.041", "< 0.001", "–"]  # noqa: RUF001


def test_foreign_text_is_one_line_of_code():
    assert plain("a `b`\n  # c") == "`a 'b' # c`"
    assert len(plain("x" * 1000)) == 1002
    assert plain("abc", 2) == "`ab`"
    assert small("") == ""


def test_a_page_leaves_out_empty_blocks(tmp_path):
    path = write_page(tmp_path / "new" / "page.md", ["# A", "", "b\n"])
    assert path.read_text(encoding="utf-8") == "# A\n\nb\n"
