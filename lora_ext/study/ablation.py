"""``python -m lora_ext ablation``: rank, scaling and placement of the adapters compared.

R/
    rank16_classical/    one variant, a study of its own: runs/, results.json
    rank32_attention/
    ...
    ablation.json ablation.md ablation.png
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_ext.networks.lora import SCALINGS
from lora_ext.study.ablation_summary import merge, summarise
from lora_ext.study.ablation_tables import write_ablation_page
from lora_ext.study.parts import Part, exit_if_failed, run_parts
from lora_ext.study.plan import Run, plan_runs
from lora_ext.study.results import write_json
from lora_ext.study.statistics import finished
from lora_ext.study.study import command_line
from lora_ext.study.variants import PLACEMENTS, RANKS, Variant, plan_variants

OWN_FLAGS = ("ranks", "scalings", "placements", "bundle", "seeds", "folds")
# Knobs that variants set, and the flags that they are set by.
VARIED = {"lora_rank": "--ranks", "lora_scaling": "--scalings", "lora_targets": "--placements"}


def run_ablation(
    data_dir: str,
    out: str,
    ranks: Any = RANKS,
    scalings: Any = tuple(SCALINGS),
    placements: Any = PLACEMENTS,
    bundle: str = "brats_lora32",
    seeds: Any = 0,
    folds: Any = 0,
    **knobs: Any,
) -> None:
    """Compare both scalings at every rank, and the placements of the adapters at rank 32.

    The same call again skips what is finished and goes on with what was stopped. Exits with 1 if a
    run failed and with 130 if it was stopped.

    Args:
        data_dir: one task folder, or a folder that holds task folders.
        out: the ablation's folder.
        ranks: one or more ranks, each with every scaling and the bundle's own placement.
        scalings: ``rank_stabilised``, ``classical`` or both.
        placements: which linear layers have adapters, such as ``out_proj,linear1;qkv,out_proj``;
            each at rank 32, rank-stabilised.
        bundle: a bundle with adapters.
        seeds: one or more seeds.
        folds: one or more folds.
        **knobs: other top-level settings of ``train.json``, ``pretrained`` among them.

    Raises:
        ValueError: for an unknown name, data or a pre-trained encoder that is not found, or a
            folder that holds runs with other settings.
    """
    for name, flag in VARIED.items():
        if name in knobs:
            raise ValueError(f"unknown knob --{name}; an ablation varies it, see {flag}")
    root = Path(str(out))
    variants = plan_variants(bundle, ranks, scalings, placements)
    given = (ranks, scalings, placements, bundle, seeds, folds)
    own = dict(zip(OWN_FLAGS, given, strict=True))
    command = command_line("ablation", str(data_dir), str(out), own, knobs)
    parts = [
        Part(root / v.name, _runs(data_dir, bundle, seeds, folds, knobs, v), v.name)
        for v in variants
    ]
    results = run_parts(parts, root, command)
    _report(variants, results, bundle, root)
    exit_if_failed(parts, results)


def _runs(
    data_dir: str, bundle: str, seeds: Any, folds: Any, knobs: Mapping[str, Any], variant: Variant
) -> list[Run]:
    return plan_runs(str(data_dir), bundle, seeds, folds, None, knobs, variant.settings)


def _report(
    variants: Sequence[Variant], results: Sequence[Mapping[str, Any]], bundle: str, root: Path
) -> None:
    merged = merge(variants, results, bundle)
    summary = summarise(variants, merged, bundle)
    write_json(root / "ablation.json", summary)
    if finished(merged):
        from lora_ext.study.ablation_plot import write_plot

        write_ablation_page(summary, merged, root / "ablation.md")
        write_plot(summary, root / "ablation.png")
        print(f"ablation.json, ablation.md and ablation.png are in {root}")
