"""ablation.json: every variant's Dice, parameters and time, summed up over its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from lora_ext.bundles.generator import bundle_facts
from lora_ext.networks.lora import adapter_scale
from lora_ext.study.pretrained import encoder_note
from lora_ext.study.statistics import OVERALL, Record, Spread, finished, spread, unfinished
from lora_ext.study.variants import Variant

Results = Mapping[str, Any]


def merge(variants: Sequence[Variant], results: Sequence[Results], bundle: str) -> dict[str, Any]:
    """Return all variants' results as one, each run named after its variant.

    Args:
        variants: what was asked for.
        results: the content of each variant's results.json.
        bundle: the bundle whose runs count; the folders may hold other ones' too.

    Returns:
        Results whose runs have a ``variant`` and, as knobs, only what all variants share.
    """
    runs = [
        {
            **run,
            "variant": variant.name,
            "row": f"{variant.name}: {run['row']}",
            "regime": "LoRA",
            "knobs": {k: v for k, v in run["knobs"].items() if k not in variant.settings},
        }
        for variant, own in zip(variants, results, strict=True)
        for run in own["runs"]
        if run["row"] == bundle
    ]
    devices = {own["device"] for own in results if own["device"] != "unknown"}
    return {**results[-1], "device": ", ".join(sorted(devices)) or "unknown", "runs": runs}


def summarise(variants: Sequence[Variant], merged: Results, bundle: str) -> dict[str, Any]:
    """Sum up every variant's runs.

    Args:
        variants: what was asked for.
        merged: what `merge` returns.
        bundle: the bundle that was run.

    Returns:
        The content of ablation.json.
    """
    facts = bundle_facts()[bundle]
    first: Record = next(iter(merged["runs"]), {})
    alpha = (first.get("knobs") or {}).get("lora_alpha", facts["lora_alpha"])
    regions = list(first.get("regions") or facts["regions"])
    return {
        **{key: merged.get(key) for key in ("command", "versions", "device", "created")},
        "bundle": bundle,
        "dataset": facts["dataset"],
        "regions": regions,
        "lora_alpha": alpha,
        "encoder": encoder_note(merged),
        "variants": [_row(variant, merged, regions, alpha) for variant in variants],
    }


def seconds_per_step(run: Record) -> float | None:
    """Return a run's median seconds per training step, None where its log does not tell.

    Args:
        run: an entry of results.json.
    """
    seconds = [s for point in run.get("curve") or [] if (s := point.get("seconds")) is not None]
    cases = run.get("training_cases")
    if not seconds or not cases:
        return None
    facts = bundle_facts()[Path(run["bundle"]).name]
    batch_size = (run.get("knobs") or {}).get("batch_size", facts["batch_size"])
    return median(seconds) / math.ceil(cases / batch_size)


def _row(variant: Variant, merged: Results, regions: Sequence[str], alpha: float) -> dict[str, Any]:
    own = {**merged, "runs": [run for run in merged["runs"] if run["variant"] == variant.name]}
    runs = finished(own)
    counts = (runs[0].get("parameters") if runs else None) or {}
    return {
        "name": variant.name,
        "rank": variant.rank,
        "scaling": variant.scaling,
        "targets": list(variant.targets),
        "default_placement": variant.default,
        "scale": adapter_scale(alpha, variant.rank, variant.scaling),
        "runs": len(runs),
        "failed": len(unfinished(own)),
        "seeds": [run["seed"] for run in runs],
        "folds": [run["fold"] for run in runs],
        "dice": {name: _numbers(spread(runs, name)) for name in (*regions, *OVERALL)},
        "parameters": {k: counts.get(k) for k in ("adapters", "trainable", "total")},
        "seconds_per_step": _numbers(Spread.of(map(seconds_per_step, runs))),
    }


def _numbers(value: Spread) -> dict[str, Any]:
    """Mean, spread and values, None in place of NaN as JSON has none."""
    mean, std = (None if math.isnan(x) else x for x in (value.mean, value.std))
    return {"mean": mean, "std": std, "values": list(value.values)}
