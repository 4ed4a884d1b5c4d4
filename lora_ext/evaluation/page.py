"""The report as a page to look through: `report.html`, tables and one picture per case."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from lora_ext.evaluation.metrics import EMPTY_RULE, CaseMetrics, summary
from lora_ext.evaluation.tables import fixed
from lora_ext.files import whole_file

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 0.7rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.9rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; display: block; }
"""


def figure_path(case: str) -> str:
    """Where a case's picture lies, relative to the report: a file name for any case name."""
    name = re.sub(r"[^\w.-]+", "_", case).lstrip(".") or "case"
    return f"figures/{name}.png"


def write_page(
    path: str | os.PathLike[str], cases: Sequence[CaseMetrics], encoder: str | None = None
) -> None:
    """Write the report: the means, all cases worst first, then each case with its picture.

    Args:
        path: the HTML file to write; it shows the pictures at `figure_path` that are there.
        cases: the measured cases.
        encoder: what the network's encoder was trained from, if that is known.
    """
    folder = Path(path).parent
    ranked = sorted(cases, key=lambda case: (case.pooled_dice, case.case))
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        f"<title>{len(cases)} cases</title><style>{STYLE}</style>",
        f"<h1>{len(cases)} cases</h1>",
        f"<p>Encoder: {escape(encoder)}</p>" if encoder else "",
        _means(cases),
        "<p>Dice at threshold 0.5; pooled: over the voxels of all regions. "
        f"{escape(EMPTY_RULE)}</p>",
        "<h2>Cases, lowest pooled Dice first</h2>",
        _overview(ranked),
        *(_case(case, folder) for case in ranked),
        "</html>",
    ]
    with whole_file(path) as draft:
        draft.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _means(cases: Sequence[CaseMetrics]) -> str:
    total = summary(cases)
    rows = [
        [name, fixed(row["dice"], 3), fixed(row["hd95_mm"], 1), str(row["hd95_undefined"])]
        for name, row in total["regions"].items()
    ]
    rows.append(["mean of the regions", fixed(total["mean_dice"], 3), "", ""])
    rows.append(["pooled", fixed(total["pooled_dice"], 3), "", ""])
    return _table(["", "Dice", "HD95 mm", "HD95 undefined"], rows)


def _overview(cases: Sequence[CaseMetrics]) -> str:
    rows = []
    for case in cases:
        dice = [*(region.dice for region in case.regions.values()), case.pooled_dice]
        link = f'<a href="#{_anchor(case)}">{escape(case.case)}</a>'
        rows.append([link, *(fixed(value, 3) for value in dice)])
    return _table(["case", *map(escape, cases[0].regions), "pooled"], rows, raw_first=True)


def _case(case: CaseMetrics, folder: Path) -> str:
    rows = [
        [
            name,
            fixed(region.dice, 3),
            fixed(region.hd95_mm, 1),
            fixed(region.truth_ml, 2),
            fixed(region.predicted_ml, 2),
        ]
        for name, region in case.regions.items()
    ]
    head = ["region", "Dice", "HD95 mm", "true ml", "predicted ml"]
    picture = "<p>No picture of this case.</p>"
    if (folder / figure_path(case.case)).is_file():
        source = quote(figure_path(case.case))
        picture = f'<img src="{source}" alt="{escape(case.case)}" loading="lazy">'
    return f'<h2 id="{_anchor(case)}">{escape(case.case)}</h2>{_table(head, rows)}{picture}'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, raw_first: bool = False) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    for first, *rest in rows:
        cells = [first if raw_first else escape(first), *map(escape, rest)]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _anchor(case: CaseMetrics) -> str:
    return quote(f"case-{case.case}", safe="")
