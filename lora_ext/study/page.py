"""The page that Tables 1 and 2 share: where it comes from, a table per data set, a legend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_ext.study.legends import (
    dataset_heading,
    dataset_notes,
    failed_block,
    paper_line,
    provenance,
)
from lora_ext.study.markdown import bullets, write_page
from lora_ext.study.statistics import Record, by_regime, finished

Layout = Callable[[str, Mapping[str, Sequence[Record]]], str]


def write_tables_page(
    path: Path, title: str, results: Mapping[str, Any], layout: Layout, legend: Sequence[str]
) -> Path:
    """Write one table per data set, with the study's provenance before and a legend after.

    Args:
        path: the file to write.
        title: the page's title.
        results: the content of results.json.
        layout: lays out one data set, from its name and its finished runs by regime.
        legend: the rules behind the numbers; the line about the paper's values is added.

    Returns:
        `path`.
    """
    blocks = [f"# {title}", provenance(results)]
    tables = by_regime(results)
    for dataset, regimes in tables.items():
        blocks += [
            dataset_heading(dataset),
            layout(dataset, regimes),
            dataset_notes(results, dataset),
        ]
    if not tables:
        blocks.append("No run has finished.")
    lines = [*legend, paper_line(finished(results))]
    return write_page(path, [*blocks, failed_block(results), "## Legend", bullets(lines)])
