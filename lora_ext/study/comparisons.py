"""comparisons.md and comparisons.json: regimes compared case by case, and the study's answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_ext.files import whole_file
from lora_ext.study.difference import MIN_CASES, RESAMPLES, Comparison, compare, holm
from lora_ext.study.legends import dataset_heading, dataset_notes, failed_block, provenance
from lora_ext.study.markdown import NONE, bullets, p_value, table, write_page
from lora_ext.study.noninferiority import MARGIN, sentence, verdict
from lora_ext.study.pairs import main_regime, planned_pairs
from lora_ext.study.paper import measure_title, regime_title
from lora_ext.study.statistics import Record, by_regime, measures, references

MAIN = "pooled_dice"
HEAD = (
    *("Regime", "against", "Cases", "Mean", "Mean of the other", "Difference"),
    *("95 % interval", "p", "p (Holm)"),
)
LEGEND = (
    "The unit is the case: two regimes are paired by data set, seed, fold and case, and a case "
    "that several seeds evaluated counts once, with its mean. A positive difference means that "
    "the regime in the first column is better. Measurements that only one of the two has "
    "(a failed run) are left out and counted under *Notes*.",
    "**Pooled** is here the Dice over all voxels of all regions *of one case* "
    "(2 Σ\\|P∩T\\| / Σ(\\|P\\| + \\|T\\|), masks after a threshold of 0.5), averaged over cases; "
    "it differs from table1.md's, which pools all cases.",
    f"*p*: Wilcoxon's signed-rank test, two-sided, zero differences left out. Fewer than "
    f"{MIN_CASES} differences cannot reach 0.05, so none is given ({NONE}). *p (Holm)* is "
    "corrected for all comparisons of its table that have one. The smallest *p* that n cases can "
    "give is 2 / 2^n (0.016 for 7): with few cases no corrected value can be small, whatever the "
    "effect; read the interval then.",
    f"The interval is a bootstrap over cases (BCa, {RESAMPLES} samples, fixed seed): a few failed "
    "cases make differences of Dice skewed, which BCa allows for. It is a little too narrow for "
    "few cases (in simulations it held the truth in 83 to 88 % of studies with 6 cases, in 91 to "
    "93 % with 20). It covers the choice of cases, not that of training seeds or folds.",
    f"*As good as* means non-inferior with a margin of {MARGIN:g} Dice: **yes** when the whole "
    f"interval lies above -{MARGIN:g}, **no** when it lies below, else **not shown**. "
    '"Not shown" does not mean "worse". The margin is a constant of the study\'s code. These '
    "intervals are not corrected for asking about several ranks; LoRA-32's is the main one.",
)


def compare_all(results: Mapping[str, Any]) -> dict[str, dict[str, list[Comparison]]]:
    """Compare the planned pairs of every data set.

    Args:
        results: the content of results.json.

    Returns:
        By data set, `main` (pooled Dice per case) and `regions`; each is one family of tests for
        Holm's correction.
    """
    found = {}
    for dataset, regimes in by_regime(results).items():
        families: dict[str, list[Comparison]] = {"main": [], "regions": []}
        names = [name for name in measures(regimes) if name not in ("mean_dice", MAIN)]
        for first, second in planned_pairs(regimes):
            families["main"].append(compare(regimes, dataset, first, second, MAIN))
            families["regions"] += [
                compare(regimes, dataset, first, second, name) for name in names
            ]
        found[dataset] = {name: holm(family) for name, family in families.items()}
    return found


def write_comparisons(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write comparisons.md and comparisons.json.

    Args:
        results: the content of results.json.
        folder: the folder to write to.
    """
    found = compare_all(results)
    page, data = folder / "comparisons.md", folder / "comparisons.json"
    blocks = ["# Regimes compared case by case", provenance(results)]
    regimes = by_regime(results)
    for dataset, families in found.items():
        blocks += _dataset_blocks(results, dataset, regimes[dataset], families)
    if not found:
        blocks.append("No run has finished.")
    write_page(page, [*blocks, failed_block(results), "## Legend", bullets(LEGEND)])
    content = {
        "margin": MARGIN,
        "comparisons": [
            {"family": name, **comparison.to_dict()}
            for families in found.values()
            for name, family in families.items()
            for comparison in family
        ],
        "as_good_as_finetune": [
            {"dataset": c.dataset, "regime": c.regime, "verdict": verdict(c), "text": sentence(c)}
            for dataset, families in found.items()
            for c in _against_finetune(families["main"], regimes[dataset])
        ],
    }
    with whole_file(data) as draft:
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
        draft.write_text(text + "\n", encoding="utf-8")
    return [page, data]


def _dataset_blocks(
    results: Mapping[str, Any],
    dataset: str,
    regimes: Mapping[str, Sequence[Record]],
    families: Mapping[str, Sequence[Comparison]],
) -> list[str]:
    heading = dataset_heading(dataset)
    if not families["main"]:
        return [heading, "One regime alone: there is nothing to compare."]
    answers = [sentence(c) for c in _against_finetune(families["main"], regimes)]
    return [
        heading,
        bullets(answers),
        f"### {measure_title(MAIN)} Dice per case",
        table(HEAD, [_row(c) for c in families["main"]]),
        _notes(families["main"]),
        "### Dice per region and case",
        table(("Region", *HEAD), [[c.measure, *_row(c)] for c in families["regions"]]),
        _notes(families["regions"]),
        dataset_notes(results, dataset),
    ]


def _against_finetune(
    comparisons: Sequence[Comparison], regimes: Mapping[str, Sequence[Record]]
) -> list[Comparison]:
    """Return adapter regimes against full fine-tuning, the main regime first."""
    answers = [c for c in comparisons if c.other == "finetune" and c.regime not in _plain(regimes)]
    return sorted(answers, key=lambda c: c.regime != main_regime(regimes))


def _plain(regimes: Mapping[str, Sequence[Record]]) -> set[str]:
    return {"baseline", "finetune", "frozen"} | references(regimes)


def _row(c: Comparison) -> list[str]:
    if not c.cases:
        return [regime_title(c.regime), regime_title(c.other), "0", *[NONE] * 6]
    interval = NONE if c.low is None or c.high is None else f"{c.low:+.4f} to {c.high:+.4f}"
    numbers = (f"{c.mean:.4f}", f"{c.other_mean:.4f}", f"{c.difference:+.4f}", interval)
    names = (regime_title(c.regime), regime_title(c.other), str(c.cases))
    return [*names, *numbers, p_value(c.p), p_value(c.p_holm)]


def _notes(comparisons: Sequence[Comparison]) -> str:
    """Say why values are missing and what was left out, each thing once."""
    notes: dict[str, list[str]] = {}
    for c in comparisons:
        pair = f"{regime_title(c.regime)} against {regime_title(c.other)}"
        left_out = f"{c.unpaired} measurements that only one of the two has are left out"
        for note in (c.note, left_out if c.unpaired else ""):
            if note and pair not in notes.setdefault(note, []):
                notes[note].append(pair)
    every = len({(c.regime, c.other) for c in comparisons})
    lines = [
        f"{'all pairs' if len(pairs) == every else ', '.join(pairs)}: {note}"
        for note, pairs in notes.items()
    ]
    return f"*Notes*\n\n{bullets(lines)}" if lines else ""
