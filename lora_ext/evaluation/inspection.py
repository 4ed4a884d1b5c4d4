"""A look at a data set before a training: tables, faults, outliers, and every case in a picture."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from tabulate import tabulate

from lora_ext.data.form import Task
from lora_ext.data.inspection import FAR, FEWEST, CaseFacts, inspect_cases, label_text
from lora_ext.data.task import read_task
from lora_ext.figures.contact_sheet import case_strip, label_colours, strip_png, write_contact_sheet
from lora_ext.files import take_folder, whole_file
from lora_ext.images.listing import counted

PAGE, SHEET = "inspection.html", "contact_sheet.png"
TEMPLATE = """\
<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ task.source.name }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 0.7rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(30rem, 1fr)); gap: 1rem; }
.cases img { width: 100%; background: black; image-rendering: pixelated; }
.wrong { color: #b00020; } i { font-style: normal; padding: 0 0.6em; margin: 0 0.3em 0 1em; }
</style>
<h1>{{ task.source.name }}: {{ cases|length }} cases</h1>
{{ summary }}
<h2>{{ problems|length }} cases with faults</h2>
{% for case in problems %}{% for words in case.problems %}
<p class="wrong"><a href="#case-{{ case.case|urlencode }}">{{ case.case }}</a>: {{ words }}</p>
{% endfor %}{% endfor %}
<h2>{{ remarked|length }} cases with remarks</h2>
{% for case in remarked %}
<p><a href="#case-{{ case.case|urlencode }}">{{ case.case }}</a>: {{ case.remarks|join("; ") }}</p>
{% endfor %}
<p>{{ rule }}</p>
<h2>Cases</h2>
<p>Axial, coronal and sagittal, through most of the labels ({{ shown }}). The patient's right is on
the left.{% for value, colour in colours.items() %}<i style="background:{{ colour }}"></i>{{
names[value] }}{% endfor %}</p>
<div class="cases">
{% for case in cases %}
<div id="case-{{ case.case|urlencode }}"><b>{{ case.case }}</b>
{{ case.shape|join(" x ") }}, {{ case.axes }}{% for value, ml in (case.labels or {}).items() %},
{{ names[value] }} {{ "%.4g"|format(ml) }} ml{% endfor %}{% if case.labels is none %}, no label
map{% endif %}
{% if pictures[case.case] %}<img src="data:image/png;base64,{{ pictures[case.case] }}"
alt="{{ case.case }}" loading="lazy">{% else %}<p class="wrong">No picture.</p>{% endif %}
{% for words in case.problems + case.remarks %}<br>{{ words }}{% endfor %}</div>
{% endfor %}
</div>
</html>
"""
RULE = (
    f"A remark is made of what lies more than {FAR:g} robust standard deviations from the median "
    f"of the cases, if there are {FEWEST} or more."
)


def inspect_data(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    modalities: Sequence[str] | None = None,
    channel: int = 0,
) -> str:
    """Read every file of a data set once, and tell what it holds and what is wrong with it.

    Args:
        data: the data set, of any layout that `read_task` reads.
        out: folder for ``inspection.html``, one page with all cases' pictures in it, and
            ``contact_sheet.png``; None draws none.
        modalities: names of the channels where the data set does not name them.
        channel: index of the channel that is drawn.

    Returns:
        The tables, faults and remarks as text.

    Raises:
        ValueError: a data set that cannot be listed, or no such channel. What is wrong with its
            files is no error here.
    """
    task = read_task(data, modalities, on_disk=())
    if not 0 <= channel < len(task.channels):
        raise ValueError(f"channel: expected 0 to {len(task.channels) - 1}, got {channel}")
    if out is not None:
        take_folder(Path(out), "out")
    cases = inspect_cases(task, None if out is None else case_strip, channel)
    text = _text(task, cases)
    if out is None:
        return text
    folder = Path(out)
    strips = {_title(case): case.picture for case in cases if case.picture is not None}
    if strips:
        write_contact_sheet(folder / SHEET, strips)
    _write_page(folder / PAGE, task, cases, task.channels[channel])
    return f"{text}\n{folder / PAGE}\n{folder / SHEET}"


def _title(case: CaseFacts) -> str:
    return f"{case.case}{' (!)' if case.problems or case.remarks else ''}"


def _text(task: Task, cases: Sequence[CaseFacts]) -> str:
    faults = [f"{c.case}: {words}" for c in cases for words in c.problems]
    remarks = [f"{c.case}: {words}" for c in cases for words in c.remarks]
    labelled = sum(case.labels is not None for case in cases)
    return "\n".join(
        [
            f"{task.source}: {len(cases)} cases, {labelled} with a label map",
            _summary(task, cases, "simple"),
            counted(len(faults), "fault") + "".join(f"\n  {words}" for words in faults),
            counted(len(remarks), "remark") + "".join(f"\n  {words}" for words in remarks),
        ]
    )


def _summary(task: Task, cases: Sequence[CaseFacts], form: str) -> str:
    """Lay out the median, lowest and highest of all cases."""
    rows: list[list[Any]] = []
    read = [case for case in cases if case.shape]
    for axis in range(3):
        rows.append([f"size {axis} (voxels)", *_spread([c.shape[axis] for c in read])])
    for axis in range(3):
        rows.append([f"spacing {axis} (mm)", *_spread([c.spacing[axis] for c in read])])
    for name in task.channels:
        held = [case.channels[name] for case in read if name in case.channels]
        rows += [
            [f"{name} 0.5 percentile", *_spread([values.low for values in held])],
            [f"{name} median", *_spread([values.median for values in held])],
            [f"{name} 99.5 percentile", *_spread([values.high for values in held])],
            [f"{name} share of zeros", *_spread([values.zero for values in held])],
        ]
    for value in _values(cases):
        ml = [case.labels.get(value, 0.0) for case in cases if case.labels is not None]
        rows.append([f"label {label_text(value, task.labels)} (ml)", *_spread(ml)])
    head = ["", "cases", "lowest", "median", "highest"]
    table = tabulate(rows, head, tablefmt=form, floatfmt=".4g", disable_numparse=[0])
    axes = {axes: sum(c.axes == axes for c in read) for axes in sorted({c.axes for c in read})}
    runs = ", ".join(f"{axes} in {count}" for axes, count in axes.items())
    return f"{table}\n" + (f"<p>axes {runs}</p>" if form == "html" else f"axes {runs}")


def _spread(values: Sequence[float]) -> list[float]:
    if not values:
        return [0]
    return [len(values), *(float(f(values)) for f in (np.min, np.median, np.max))]


def _values(cases: Sequence[CaseFacts]) -> list[int]:
    return sorted({value for case in cases for value in case.labels or {}})


def _write_page(path: Path, task: Task, cases: Sequence[CaseFacts], channel: str) -> None:
    pictures = {
        case.case: base64.b64encode(strip_png(case.picture)).decode()
        for case in cases
        if case.picture is not None
    }
    values = _values(cases)
    template = Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE)
    text = template.render(
        task=task,
        cases=cases,
        summary=Markup(_summary(task, cases, "html")),  # tabulate has escaped the names
        problems=[case for case in cases if case.problems],
        remarked=[case for case in cases if case.remarks],
        rule=RULE,
        shown=channel,
        colours=label_colours(values),
        names={value: label_text(value, task.labels) for value in values},
        pictures=pictures,
    )
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
