"""The report as a page to look through: `report.html`, tables and one picture per case."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment

from lora_ext.evaluation.metrics import EMPTY_RULE, CaseMetrics, summary
from lora_ext.evaluation.tables import fixed
from lora_ext.files import whole_file

TEMPLATE = """\
<!doctype html><html lang="en"><meta charset="utf-8">
<title>{{ cases|length }} cases</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 0.7rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.9rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; display: block; }
</style>
<h1>{{ cases|length }} cases</h1>
{% if encoder %}
<p>Encoder: {{ encoder }}</p>
{% endif %}
{% if seen %}
<p><strong>The network was trained on {{ seen|length }} of these cases ({{ seen|join(", ") }}): how
well they are segmented says nothing about new patients.</strong></p>
{% endif %}
<table><tr><th></th><th>Dice</th><th>HD95 mm</th><th>HD95 undefined</th></tr>
{% for name, region in total.regions.items() %}
<tr><td>{{ name }}</td><td>{{ region.dice|fixed(3) }}</td><td>{{ region.hd95_mm|fixed(1) }}</td>
<td>{{ region.hd95_undefined }}</td></tr>
{% endfor %}
<tr><td>mean of the regions</td><td>{{ total.mean_dice|fixed(3) }}</td><td></td><td></td></tr>
<tr><td>pooled</td><td>{{ total.pooled_dice|fixed(3) }}</td><td></td><td></td></tr>
</table>
<p>Dice at threshold 0.5; pooled: over the voxels of all regions. {{ rule }}</p>
<h2>Cases, lowest pooled Dice first</h2>
<table><tr><th>case</th>
{% for name in total.regions %}<th>{{ name }}</th>{% endfor %}<th>pooled</th></tr>
{% for case in cases %}
<tr><td><a href="#case-{{ case.case|urlencode }}">{{ case.case }}</a></td>
{% for region in case.regions.values() %}<td>{{ region.dice|fixed(3) }}</td>{% endfor %}
<td>{{ case.pooled_dice|fixed(3) }}</td></tr>
{% endfor %}
</table>
{% for case in cases %}
<h2 id="case-{{ case.case|urlencode }}">{{ case.case }}</h2>
<table><tr><th>region</th><th>Dice</th><th>HD95 mm</th><th>true ml</th><th>predicted ml</th></tr>
{% for name, region in case.regions.items() %}
<tr><td>{{ name }}</td><td>{{ region.dice|fixed(3) }}</td><td>{{ region.hd95_mm|fixed(1) }}</td>
<td>{{ region.truth_ml|fixed(2) }}</td><td>{{ region.predicted_ml|fixed(2) }}</td></tr>
{% endfor %}
</table>
{% if pictures[loop.index0] %}
<img src="{{ pictures[loop.index0]|urlencode }}" alt="{{ case.case }}" loading="lazy">
{% else %}
<p>No picture of this case.</p>
{% endif %}
{% endfor %}
</html>
"""


def figure_path(case: str) -> str:
    """Return where a case's picture lies, relative to the report: its own for any case name."""
    name = re.sub(r"[^\w.-]+", "_", case).lstrip(".")[:100] or "case"
    if name != case:  # another case may come to the same name
        name += f"-{hashlib.sha256(case.encode()).hexdigest()[:8]}"
    return f"figures/{name}.png"


def write_page(
    path: str | os.PathLike[str],
    cases: Sequence[CaseMetrics],
    encoder: str | None = None,
    seen: Sequence[str] = (),
) -> None:
    """Write the report: the means, all cases worst first, then each case with its picture.

    Args:
        path: the HTML file to write; it shows the pictures that exist at `figure_path`.
        cases: the measured cases.
        encoder: what the network's encoder was trained from; None where that is unknown.
        seen: names of cases that the network was trained on.
    """
    ranked = sorted(cases, key=lambda case: (case.pooled_dice, case.case))
    places = [figure_path(case.case) for case in ranked]
    environment = Environment(autoescape=True, trim_blocks=True, keep_trailing_newline=True)
    environment.filters["fixed"] = fixed
    text = environment.from_string(TEMPLATE).render(
        cases=ranked,
        total=summary(cases),
        encoder=encoder,
        seen=seen,
        rule=EMPTY_RULE,
        pictures=[place if (Path(path).parent / place).is_file() else "" for place in places],
    )
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
