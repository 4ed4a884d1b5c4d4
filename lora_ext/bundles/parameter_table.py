"""Parameter counts of all segmentation bundles, the paper's Table 2 beside them."""

from __future__ import annotations

import torch

from lora_ext.bundles.generator import bundle_facts
from lora_ext.networks import build_network
from lora_ext.networks.parameters import PAPER_TABLE_2, parameter_report, reconcile


def parameter_table(backbone: str = "unetr") -> dict[str, dict]:
    """Table 2 for all segmentation bundles, at the paper's size.

    Args:
        backbone: the backbone of all; the paper's is ``unetr``.

    Returns:
        By bundle: the counts of `ParameterReport.as_dict`, ``paper`` (the paper's cells in
        millions, or ``None`` where it has none) and ``paper_arithmetic`` (see `reconcile`).
    """
    table = {}
    for name, facts in bundle_facts().items():
        with torch.device("meta"):  # sizes without memory
            network = build_network(
                backbone,
                in_channels=len(facts["modalities"]),
                out_channels=len(facts["regions"]),
                regime=facts["regime"],
                lora_rank=facts["lora_rank"],
                lora_targets=facts["lora_targets"],
            )
        report = parameter_report(network)
        cells = PAPER_TABLE_2.get(name) if backbone == "unetr" else None
        columns = ("total", "trainable", "non_trainable")
        table[name] = {
            **report.as_dict(),
            "paper": dict(zip(columns, cells, strict=True)) if cells else None,
            "paper_arithmetic": reconcile(report, len(facts["modalities"])),
        }
    return table


def format_table(table: dict[str, dict]) -> str:
    """Lay `parameter_table` out for the console, counts in millions."""
    lines = [
        "                     ours [M]                                      "
        "paper's Table 2 [M]             its arithmetic, repeated [M]",
        f"{'bundle':<20}{'encoder':>9}{'fus+dec':>9}{'adapters':>10}{'total':>9}{'trained':>9}"
        + f"{'total':>12}{'trained':>9}{'not tr.':>9}" * 2,
    ]
    for name, row in table.items():
        keys = ("encoder", "fusion_decoder", "adapters", "total", "trainable")
        ours = [f"{row[k] / 1e6:.3f}" for k in keys]
        paper = [f"{v:.2f}" for v in row["paper"].values()] if row["paper"] else ["-"] * 3
        again = [f"{v / 1e6:.3f}" for v in row["paper_arithmetic"].values()]
        line = f"{name:<20}" + "".join(
            cell.rjust(width)
            for cell, width in zip(
                ours + paper + again, (9, 9, 10, 9, 9, 12, 9, 9, 12, 9, 9), strict=True
            )
        )
        lines.append(line)
    lines.append(
        "The paper's LoRA totals count C - 1 of the C adapters twice (HF peft marks one adapter as"
        "\ntrainable, the others as not); the last three columns repeat that arithmetic. Each"
        "\nparameter is counted once in the columns headed 'ours'."
    )
    return "\n".join(lines)
