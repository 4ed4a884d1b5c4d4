"""``python -m lora_ext ablation``: rank, scaling and placement of the adapters compared.

Each variant is a study of its own in a folder such as ``rank16_classical``; ablation.json,
ablation.md and ablation.png sum them up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from lora_ext.bundles.generator import bundle_facts
from lora_ext.evaluation.tables import without_nan
from lora_ext.networks.lora import SCALINGS, adapter_scale
from lora_ext.networks.regimes import get_regime
from lora_ext.study import pages, plots
from lora_ext.study.comparisons import MAIN
from lora_ext.study.paper import title
from lora_ext.study.plan import integers, plan_runs, words
from lora_ext.study.results import OVERALL, dice_frame, finished_runs, run_frame, titles, write_json
from lora_ext.study.study import Part, command_line, exit_if_failed, run_parts

# Settings that variants set, and the flags that they are set by.
VARIED = {"lora_rank": "--ranks", "lora_scaling": "--scalings", "lora_targets": "--placements"}
RANKS = (4, 8, 16, 32, 64, 128)
PLACEMENTS = "out_proj,linear1;qkv,out_proj;qkv,out_proj,linear1,linear2"
PLACEMENT_RANK = 32  # the rank at which placements are compared
TARGETS = ("qkv", "out_proj", "linear1", "linear2")  # linear layers of a transformer block
PLACEMENT_NAMES = {("qkv", "out_proj"): "attention", TARGETS: "all_linears"}  # of folders
COLOURS = {"rank_stabilised": "#009E73", "classical": "#D55E00"}
LEGEND = f"""\
- `lora_alpha` is ALPHA at all ranks. Rank-stabilised adapters are scaled by alpha / √r
  (Kalajdzievski 2023), classical ones by alpha / r (Hu et al. 2021).
- The scalings are compared with the bundle's own placement, the placements rank-stabilised at rank
  {PLACEMENT_RANK}. A placement names the linear layers of a transformer block that have adapters.
- Dice is the mean over runs ± their sample standard deviation over seeds and folds (none for a
  single run). {{{{ seed_rule }}}} **Bold** is the best of all variants, <u>underlined</u> the
  second-best, compared as printed; without a spread, or within it, that is no evidence.
- {{{{ dice_rule }}}}
- {{{{ pooled_rule }}}}
- Adapters and all trainable parameters (adapters, fusion, decoder) are in millions (M).
- Seconds per step: the median time of a training epoch in the log (to 0.1 s) over its number of
  steps, mean over runs; with reading data, without validation and start-up.
- {{{{ encoder_rule }}}}
"""


class Variant(NamedTuple):
    """One choice of adapters."""

    rank: int
    scaling: str
    targets: tuple[str, ...]  # the linear layers that have adapters, in the order of TARGETS
    default_placement: bool  # whether these are the bundle's own targets

    @property
    def name(self) -> str:
        """The variant's folder, such as ``rank16_classical`` or ``rank32_attention``."""
        placement = PLACEMENT_NAMES.get(self.targets, "-".join(self.targets))
        return f"rank{self.rank}_{self.scaling if self.default_placement else placement}"

    @property
    def settings(self) -> dict[str, Any]:
        """The variant as settings of ``train.json``."""
        return dict(zip(VARIED, (self.rank, self.scaling, list(self.targets)), strict=True))


def run_ablation(
    data_dir: str,
    out: str,
    ranks: Any = RANKS,
    scalings: Any = tuple(SCALINGS),
    placements: Any = PLACEMENTS,
    bundle: str = "brats_lora32",
    seeds: Any = 0,
    folds: Any = 0,
    **settings: Any,
) -> None:
    """Compare both scalings at every rank, and the placements of the adapters at rank 32.

    It resumes and exits as `run_study` does; for its arguments see ``ablation --help``.
    """
    for name in VARIED.keys() & settings.keys():
        raise ValueError(f"unknown setting --{name}; an ablation varies it, use {VARIED[name]}")
    root = Path(str(out))
    variants = plan_variants(bundle, ranks, scalings, placements)
    own = {"ranks": ranks, "scalings": scalings, "placements": placements}
    own |= {"bundle": bundle, "seeds": seeds, "folds": folds}
    command = command_line("ablation", str(data_dir), str(out), own, settings)
    parts = []
    for variant in variants:
        runs = plan_runs(str(data_dir), bundle, seeds, folds, None, settings, variant.settings)
        parts.append(Part(root / variant.name, runs, variant.name))
    results = run_parts(parts, root, command)
    merged = merge(variants, results, bundle)
    summary = summarise(variants, merged, bundle)
    write_json(root / "ablation.json", summary)
    if finished_runs(merged):
        write_ablation_page(summary, merged, root / "ablation.md")
        plots.save(draw(summary), root / "ablation.png", run_frame(merged))
        print(f"ablation.json, ablation.md and ablation.png are in {root}")
    exit_if_failed(parts, results)


def plan_variants(bundle: str, ranks: Any, scalings: Any, placements: Any) -> list[Variant]:
    """Expand what `run_ablation` was asked for into variants, each once."""
    facts = bundle_facts()
    fitting = [name for name, own in facts.items() if get_regime(own["regime"]).adapters]
    if bundle not in fitting:
        raise ValueError(f"--bundle: expected one of {', '.join(fitting)}, got {bundle!r}")
    own = _order(facts[bundle]["lora_targets"])
    found = integers("ranks", ranks)
    if min(found) < 1:
        raise ValueError(f"--ranks: expected whole numbers from 1 on, got {min(found)}")
    names = words(scalings)
    if not names or set(names) - set(SCALINGS):
        raise ValueError(f"--scalings: expected {' or '.join(SCALINGS)}, got {scalings!r}")
    variants = [Variant(rank, scaling, own, True) for rank in found for scaling in names]
    if isinstance(placements, (list, tuple)):  # fire makes a tuple of one placement
        placements = ",".join(map(str, placements))
    split = [words(part) for part in str(placements or "").split(";")]
    for targets in map(_order, filter(None, split)):
        variants.append(Variant(PLACEMENT_RANK, "rank_stabilised", targets, targets == own))
    return list(dict.fromkeys(variants))


def merge(
    variants: Sequence[Variant], results: Sequence[Mapping[str, Any]], bundle: str
) -> dict[str, Any]:
    """Return all variants' runs of one bundle as one study, with the settings that they share."""
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


def summarise(
    variants: Sequence[Variant], merged: Mapping[str, Any], bundle: str
) -> dict[str, Any]:
    """Return the content of ablation.json: every variant's runs, summed up; see `merge`."""
    facts = bundle_facts()[bundle]
    first: Mapping[str, Any] = next(
        iter(merged["runs"]), {"knobs": {}, "regions": facts["regions"]}
    )
    alpha = first["knobs"].get("lora_alpha", facts["lora_alpha"])
    regions = list(first["regions"])
    return {
        **{key: merged.get(key) for key in ("command", "versions", "device", "created")},
        "bundle": bundle,
        "dataset": facts["dataset"],
        "regions": regions,
        "lora_alpha": alpha,
        "encoder": pages.encoder_note(run_frame(merged)),
        "variants": [_row(variant, merged, regions, alpha) for variant in variants],
    }


def seconds_per_step(run: Mapping[str, Any]) -> float | None:
    """Return a run's median seconds per training step, None where its log does not tell."""
    seconds = [s for point in run.get("curve") or [] if (s := point.get("seconds")) is not None]
    if not seconds or not run.get("training_cases"):
        return None
    default = bundle_facts()[Path(run["bundle"]).name]["batch_size"]
    return median(seconds) / math.ceil(
        run["training_cases"] / run["knobs"].get("batch_size", default)
    )


def write_ablation_page(summary: Mapping[str, Any], merged: Mapping[str, Any], path: Path) -> Path:
    """Write ablation.md: a row per variant, and the rules behind the numbers."""
    settings, encoders = pages.settings_note(finished_runs(merged)), summary["encoder"]
    notes = [f"Bundle: `{summary['bundle']}`.", settings, encoders]
    section = {"heading": "", "body": variants_table(summary), "notes": notes}
    head = f"Rank, scaling and placement of the adapters: {title(summary['dataset'])}"
    legend = LEGEND.replace("ALPHA", f"{summary['lora_alpha']:g}")
    return pages.write_page(path, head, merged, [section], legend)


def variants_table(summary: Mapping[str, Any]) -> str:
    """Lay the variants of ablation.json out, a row each."""
    rows = pd.json_normalize(summary["variants"])
    numbers = rows.reindex(columns=[c for c in rows if c.endswith((".mean", ".std"))])
    numbers = numbers.join(rows.filter(like="parameters.")).astype(float)
    table = pd.DataFrame({"Placement": rows["targets"].map(", ".join) + rows["mark"]})
    table["Rank"], table["Scaling"] = rows["rank"], rows["scaling"].str.replace("_", "-")
    for name in (MAIN, *summary["regions"]):
        mean, std = numbers[f"dice.{name}.mean"], numbers[f"dice.{name}.std"]
        places = mean.index.map(pages.ranking(mean)).fillna(0)
        table[title(name)] = list(map(pages.spread, mean, std, places))
    table["Adapters (M)"] = numbers["parameters.adapters"].map(pages.millions)
    table["Trainable (M)"] = numbers["parameters.trainable"].map(pages.millions)
    seconds = numbers["seconds_per_step.mean"].map("{:.3g}".format)
    table["Seconds per step"] = seconds.replace("nan", pages.NONE)
    failed = rows["failed"].map(lambda count: f" ({count} failed)" if count else "")
    table["Runs"] = rows["runs"].astype(str) + failed
    return pages.markdown(table)


def draw(summary: Mapping[str, Any]) -> Figure:
    """Draw mean pooled Dice against rank, a line per scaling, single runs as dots."""
    figure, (axes,) = plots.canvas(1, 1, 5.2, 7.5)
    plots.dress(axes, f"{title(summary['dataset'])}: adapters", "rank", "pooled Dice")
    rows = pd.DataFrame([row for row in summary["variants"] if row["runs"]]).sort_values("rank")
    rows["label"] = rows["targets"].map(", ".join) + rows["mark"]
    rows["mean"] = [dice[MAIN]["mean"] for dice in rows["dice"]]
    rows["line"] = rows["scaling"].where(rows["default_placement"], f"rank {PLACEMENT_RANK}")
    for place, ((line, label), own) in enumerate(rows.groupby(["line", "label"], sort=False)):
        scaled = line in COLOURS
        x = own["rank"] * (1.0 if scaled else 2 ** (0.15 * place))  # placements beside their rank
        colour = COLOURS[line] if scaled else plots.COLOURS[1 + place % 5]
        label = f"{line.replace('_', '-')}: {label}"
        axes.plot(x, own["mean"], "-o" if scaled else "D", color=colour, label=label, markersize=8)
        for at, dice in zip(x, own["dice"], strict=True):
            values = dice[MAIN]["values"]
            axes.plot([at] * len(values), values, color="black", zorder=3, **plots.DOTS)
    axes.set_xscale("log", base=2)
    axes.set_xticks(rows["rank"].unique(), rows["rank"].unique())
    axes.minorticks_off()
    axes.margins(0.12)
    figure.legend(loc="outside upper center", frameon=False, title="dots: single runs")
    return figure


def _order(targets: Sequence[str]) -> tuple[str, ...]:
    if unknown := [name for name in targets if name not in TARGETS]:
        known, got = ", ".join(TARGETS), ", ".join(unknown)
        raise ValueError(f"--placements: expected layers of {known}, got {got}")
    return tuple(name for name in TARGETS if name in targets)


def _row(
    variant: Variant, merged: Mapping[str, Any], regions: Sequence[str], alpha: float
) -> dict[str, Any]:
    own = {"runs": [run for run in merged["runs"] if run["variant"] == variant.name]}
    done, dice = finished_runs(own), dice_frame(own)
    counts = (done[0].get("parameters") if done else None) or {}
    values = {name: dice.loc[dice["measure"] == name, "value"] for name in (*regions, *OVERALL)}
    return {
        "name": variant.name,
        **variant._asdict(),
        "scale": adapter_scale(alpha, variant.rank, variant.scaling),
        "mark": "".join(titles(run_frame(own)).values()).removeprefix("LoRA"),
        "runs": len(done),
        "failed": len(own["runs"]) - len(done),
        "seeds": [run["seed"] for run in done],
        "folds": [run["fold"] for run in done],
        "dice": {name: _numbers(found) for name, found in values.items()},
        "parameters": {key: counts.get(key) for key in ("adapters", "trainable", "total")},
        "seconds_per_step": _numbers(map(seconds_per_step, done)),
    }


def _numbers(values: Iterable[float | None]) -> dict[str, Any]:
    """Return mean, sample standard deviation and values; None where undefined, as in JSON."""
    known = pd.Series(list(values), dtype=float).dropna()
    return without_nan({"mean": known.mean(), "std": known.std(), "values": list(known)})
