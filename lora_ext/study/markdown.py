"""Tables and numbers as GitHub's markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from lora_ext.files import whole_file
from lora_ext.study.statistics import Spread

MARKS = {1: "**{}**", 2: "<u>{}</u>"}
NONE = "–"  # noqa: RUF001


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay a table out: the first column to the left, the others to the right.

    Args:
        head: the columns' titles.
        rows: one list of cells per row.
    """
    lines = [list(head), [":--", *["--:"] * (len(head) - 1)], *map(list, rows)]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def dice(value: Spread, mark: int | None = None) -> str:
    """Return mean and spread with four decimals, the mean marked as best (1) or second (2)."""
    if math.isnan(value.mean):
        return NONE
    text = MARKS.get(mark or 0, "{}").format(f"{value.mean:.4f}")
    return text if math.isnan(value.std) else f"{text} ± {value.std:.4f}"


def change(percent: float) -> str:
    """Return a change in percent with an arrow, empty where it is undefined."""
    if math.isnan(percent):
        return ""
    rounded = round(percent, 1)
    arrow = "↑" if rounded > 0 else "↓" if rounded < 0 else ""
    return f"({arrow}{abs(rounded):.1f})"


def small(text: str) -> str:
    """Return text in small print."""
    return f"<sub>{text}</sub>" if text else ""


def p_value(p: float | None) -> str:
    """Return a p-value with three decimals."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def plain(text: str, most: int | None = None) -> str:
    """Return text from elsewhere, such as an error, as one line of code that breaks nothing.

    Args:
        text: any text.
        most: number of characters that are kept, all by default.
    """
    line = " ".join(str(text).replace("`", "'").split())
    return f"`{line[:most]}`"


def bullets(lines: Sequence[str]) -> str:
    """Return a list, one line per point."""
    return "\n".join(f"- {line}" for line in lines)


def write_page(path: Path, blocks: Sequence[str]) -> Path:
    """Write blocks of markdown, an empty line between them; empty blocks are left out.

    Args:
        path: the file to write.
        blocks: paragraphs, headings, lists and tables.

    Returns:
        The file.
    """
    text = "\n\n".join(block.strip("\n") for block in blocks if block)
    with whole_file(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")
    return path


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")
