"""What a stranger needs to read the tables: where the numbers come from and by which rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_ext.evaluation.metrics import EMPTY_RULE
from lora_ext.study.markdown import bullets, plain
from lora_ext.study.paper import PAPER_ENCODER_PARAMETERS, dataset_title, regime_title
from lora_ext.study.pretrained import encoder_line
from lora_ext.study.statistics import Record, finished, unfinished

PAPER = "Dutta et al., under review for MIDL 2025"

DICE_RULES = (
    "Dice compares masks after a threshold of 0.5. A region's row is the mean over cases. "
    + EMPTY_RULE.split(" HD95")[0],
    "**Mean of regions** (`mean_dice`) is the plain mean of the regions' rows. **Pooled** "
    "(`pooled_dice`) is one Dice over all voxels of all regions and all cases, "
    "2 Σ\\|P∩T\\| / Σ(\\|P\\| + \\|T\\|), so large regions count for more. "
    'The paper\'s "Overall" stands beside Pooled: it is not the mean of its regions and fits a '
    "pooled Dice.",
)


def provenance(results: Mapping[str, Any]) -> str:
    """Return where, when and with what the runs were made, one small line each."""
    versions = ", ".join(f"{name} {value}" for name, value in results.get("versions", {}).items())
    lines = {
        "Command": plain(results["command"]) if results.get("command") else "",
        "Made": results.get("created", ""),
        "Device": results.get("device", ""),
        "Versions": versions,
    }
    return bullets([f"{name}: {value}" for name, value in lines.items() if value])


def run_lines(results: Mapping[str, Any], dataset: str) -> list[str]:
    """Return the number of runs and cases of a data set, by regime where they differ."""
    texts: dict[str, list[str]] = {}
    for run in finished(results):
        if run["dataset"] == dataset:
            texts.setdefault(run["regime"], [])
    for regime in texts:
        own = [r for r in finished(results) if (r["dataset"], r["regime"]) == (dataset, regime)]
        texts[regime] = [_count(own)]
    distinct = list(dict.fromkeys(text for (text,) in texts.values()))
    if len(distinct) == 1:
        return [f"Runs per column: {distinct[0]}."]
    return [
        f"Runs of {', '.join(regime_title(n) for n, (own,) in texts.items() if own == text)}: "
        f"{text}."
        for text in distinct
    ]


def settings_line(results: Mapping[str, Any], dataset: str) -> str:
    """Return what differs from the bundles' defaults, and in which regimes if not in all.

    The pre-trained encoder has a line of its own, see `encoder_line`.
    """
    runs = [run for run in finished(results) if run["dataset"] == dataset]
    own = [run for run in runs if not run.get("reference")] or runs
    where: dict[tuple[str, str], list[str]] = {}
    for run in own:
        knobs = {k: v for k, v in (run.get("knobs") or {}).items() if k != "pretrained"}
        for knob, value in knobs.items():
            regimes = where.setdefault((knob, str(value)), [])
            if run["regime"] not in regimes:
                regimes.append(run["regime"])
    every = {run["regime"] for run in own}
    parts = [
        f"`{knob}` {value}"
        + ("" if set(regimes) == every else f" ({', '.join(map(regime_title, regimes))})")
        for (knob, value), regimes in where.items()
    ]
    return f"Settings other than the bundles' defaults: {'; '.join(parts)}." if parts else ""


def dataset_notes(results: Mapping[str, Any], dataset: str) -> str:
    """Return the paragraph below a data set's table: runs, settings, where they started."""
    notes = [
        *run_lines(results, dataset),
        settings_line(results, dataset),
        encoder_line(results, dataset),
    ]
    return " ".join(note for note in notes if note)


def failed_block(results: Mapping[str, Any]) -> str:
    """Return the runs that did not finish, with their errors; empty when all did."""
    lines = [
        f"`{run['row']}`, seed {run['seed']}, fold {run['fold']}: "
        + plain(run.get("error") or run["status"], 300)
        for run in unfinished(results)
    ]
    return f"**Runs without a result** ({len(lines)}):\n\n{bullets(lines)}" if lines else ""


def paper_line(runs: Iterable[Record]) -> str:
    """Return what `paper` means and, for smaller networks, that they are another thing."""
    encoders = {
        (run.get("parameters") or {}).get("encoder") for run in runs if not run.get("reference")
    }
    text = (
        f"`paper` is the paper's printed value ({PAPER}). It was measured on patients, after "
        "pre-training on 0.5 million volumes and 200 epochs. Numbers on phantoms, on other cases, "
        "from smaller networks or shorter training are **not comparable** with it; compare "
        "columns with columns."
    )
    if encoders - {PAPER_ENCODER_PARAMETERS, None}:
        text += " **Runs in this study use a network of another size than the paper's.**"
    return text


def dataset_heading(name: str) -> str:
    """Return the heading of a data set's part."""
    return f"## {dataset_title(name)}"


def _count(runs: Sequence[Record]) -> str:
    seeds = sorted({run["seed"] for run in runs})
    folds = sorted({run["fold"] for run in runs})
    cases = sorted({len(run["cases"]) for run in runs})
    per_run = str(cases[0]) if len(cases) == 1 else f"{cases[0]} to {cases[-1]}"
    names = {case["case"] for run in runs for case in run["cases"]}
    return (
        f"{len(runs)} ({_named('seed', seeds)}, {_named('fold', folds)}), {per_run} cases per "
        f"run, {len(names)} distinct cases"
    )


def _named(noun: str, values: Sequence[int]) -> str:
    return f"{noun}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}"
