"""A page of markdown: where its runs come from, a table per data set with notes, a legend."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from lora_ext.evaluation.metrics import EMPTY_RULE
from lora_ext.files import whole_file
from lora_ext.study.paper import PAPER, PAPER_ENCODER_PARAMETERS, title
from lora_ext.study.results import RANDOM, UNKNOWN, Record, finished_runs, run_frame

NONE = "–"  # noqa: RUF001
MARKS = {1: "**{}**", 2: "<u>{}</u>"}  # the best and the second-best of a row
PAGE = """\
# {{ head }}

{% for name, value in provenance.items() if value %}
- {{ name }}: {{ value }}
{% endfor %}
{% for section in sections %}

{{ section.heading }}

{{ section.body }}

{{ section.notes | select | join(" ") }}
{% else %}

No run has finished.
{% endfor %}
{% if failed %}

**Runs without a result** ({{ failed | length }}):

{% for run in failed %}
- `{{ run.row }}`, seed {{ run.seed }}, fold {{ run.fold }}: {{ (run.error or run.status) | code }}
{% endfor %}
{% endif %}

## Legend

{{ legend }}
{% if other_size %}
- **Runs in this study use a network of another size than the paper's.**
{% endif %}
"""
RULES = {
    "none": NONE,
    "dice_rule": f"""\
Dice compares masks after a threshold of 0.5. A region's Dice is the mean over cases.
  {EMPTY_RULE.split(" HD95")[0].replace("the truth", "the ground truth")}""",
    "pooled_rule": """\
**Pooled** (`pooled_dice`) is one Dice over all voxels of all regions and all cases,
  2 TP / (2 TP + FP + FN), so large regions count for more.""",
    "seed_rule": """\
A seed changes weights, order and crops; the folds are the same
  for all seeds and follow the setting `split_seed`.""",
    "encoder_rule": """\
*(random encoder)* marks runs that started from random weights although their regime is meant to
  start from a pre-trained encoder: they are no test of the paper's claims about it.""",
    "paper_rule": f"""\
`paper` is the paper's printed value ({PAPER}), measured on patients after
  pre-training on 0.5 million volumes and 200 epochs. Phantoms, other cases, smaller networks or
  shorter training are **not comparable** with it; compare columns with columns.""",
}


def write_page(
    path: Path, head: str, results: Mapping[str, Any], sections: Sequence[Any], legend: str
) -> Path:
    """Write a page: `sections` have a ``heading`` (or none), a ``body`` and ``notes``."""
    sizes = set(run_frame(results)["parameters.encoder"].dropna()) - {PAPER_ENCODER_PARAMETERS}
    versions = results.get("versions") or {}
    text = ENVIRONMENT.from_string(PAGE).render(
        head=head,
        provenance={
            "Command": code(results["command"], 10_000) if results.get("command") else "",
            "Made": results.get("created"),
            "Device": results.get("device"),
            "Versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
        },
        sections=sections,
        failed=[run for run in results["runs"] if run["status"] != "done"],
        legend=ENVIRONMENT.from_string(legend).render(RULES),
        other_size=bool(sizes),
    )
    with whole_file(path) as draft:
        draft.write_text(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", encoding="utf-8")
    return path


def dataset_sections(results: Mapping[str, Any], bodies: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a section per data set, from its table, with notes on its runs."""
    frame, found = run_frame(results), []
    for dataset, body in bodies.items():
        runs = [run for run in finished_runs(results) if run["dataset"] == dataset]
        own = frame[frame["dataset"] == dataset]
        notes = [*run_notes(own), settings_note(runs), encoder_note(own)]
        found.append({"heading": f"## {title(dataset)}", "body": body, "notes": notes})
    return found


def run_notes(runs: pd.DataFrame) -> list[str]:
    """Return the number of a data set's runs and cases, by regime where they differ."""
    texts = {}
    for regime, own in runs.groupby("regime"):
        counts, names = own["cases"].map(len), set().union(*own["cases"])
        per_run = " to ".join(map(str, sorted({counts.min(), counts.max()})))
        places = []
        for noun in ("seed", "fold"):
            found = own[noun].drop_duplicates().sort_values().astype(str)
            places.append(f"{noun}{'s' if len(found) > 1 else ''} {', '.join(found)}")
        cases = f"{per_run} cases per run, {len(names)} distinct cases."
        texts[title(str(regime))] = f"{len(own)} ({', '.join(places)}), {cases}"
    if len(distinct := dict.fromkeys(texts.values())) == 1:
        return [f"Runs per column: {next(iter(distinct))}"]
    return [f"Runs of {', '.join(n for n in texts if texts[n] == t)}: {t}" for t in distinct]


def settings_note(runs: Sequence[Record]) -> str:
    """Return what differs from the bundles' defaults, and in which regimes if not in all."""
    own = [run for run in runs if not run.get("reference")] or runs
    rows = [
        (code(f"{name} {value}"), title(run["regime"]))
        for run in own
        for name, value in (run.get("knobs") or {}).items()
        if name != "pretrained"  # see `encoder_note`
    ]
    regimes = pd.DataFrame(rows, columns=["setting", "regime"]).groupby("setting", sort=False)
    every, parts = {title(run["regime"]) for run in own}, []
    for setting, found in regimes["regime"].unique().items():
        parts.append(setting + (f" ({', '.join(found)})" if set(found) != every else ""))
    return f"Settings other than the bundles' defaults: {', '.join(parts)}." if parts else ""


def encoder_note(runs: pd.DataFrame, mark: str = "`", most: int = 99) -> str:
    """Return what regimes that are meant to start from a pre-trained encoder started from."""
    texts = {RANDOM: "random weights", UNKNOWN: "an unknown encoder"}
    starts: dict[str, list[str]] = {}
    for start, own in runs.dropna(subset="start").groupby("start", sort=False):
        names = ", ".join(map(title, own["regime"].sort_values().unique()))
        starts.setdefault(names, []).append(texts.get(str(start), f"{mark}{start}{mark}"))
    notes = [
        f"{names} started from {', '.join(files[:most])}"
        + (f" and {len(files) - most} more" if len(files) > most else "")
        for names, files in starts.items()
    ]
    return f"Encoder: {'; '.join(notes)}." if notes else ""


def markdown(table: pd.DataFrame) -> str:
    """Return a table of text, its first column to the left, the others to the right."""
    cells = table.map(lambda cell: str(cell).replace("|", "\\|"))
    align = ["left", *["right"] * (len(cells.columns) - 1)]
    return cells.to_markdown(index=False, disable_numparse=True, colalign=align)


def spread(mean: float, std: float, place: int = 0, digits: int = 4) -> str:
    """Return mean ± standard deviation, the mean marked as best (1) or second (2)."""
    if math.isnan(mean):
        return NONE
    text = MARKS.get(place, "{}").format(f"{mean:.{digits}f}")
    return text if math.isnan(std) else f"{text} ± {std:.{digits}f}"


def millions(count: float, share: float = math.nan) -> str:
    """Return a count in millions, and what share of the whole it is."""
    text = NONE if math.isnan(count) else f"{count / 1e6:.3f}"
    return text if math.isnan(share) else f"{text} ({100 * share:.2f} %)"


def ranking(means: pd.Series, outside: Collection[str] = (), digits: int = 4) -> dict[str, int]:
    """Tell the best (1) and the second-best (2) of a row, compared as they are printed.

    A name in `outside` takes part only where it is better than all others, and nobody alone.
    """
    known = means.round(digits).dropna()
    inside = ~known.index.isin(list(outside))
    known = known[inside | (known > known[inside].max())]
    places = known.rank(method="dense", ascending=False).astype(int)
    return places[places <= 2].to_dict() if len(known) > 1 else {}


def code(text: Any, most: int = 300) -> str:
    """Return text from elsewhere, such as an error, as one line of code that breaks nothing."""
    return f"`{' '.join(str(text).replace('`', chr(39)).split())[:most]}`"


# No autoescape: it is for HTML, and would be seen in code spans. Foreign text goes through `code`.
ENVIRONMENT = Environment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)
ENVIRONMENT.filters["code"] = code
