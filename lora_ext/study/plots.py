"""Results as pictures: Dice by region and by parameters, learning curves, cases."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_ext.files import whole_file
from lora_ext.study.curves import learning_curves
from lora_ext.study.dice_plots import dice_against_parameters, dice_per_region
from lora_ext.study.drawing import footnote
from lora_ext.study.overlays import overlay_page
from lora_ext.study.pretrained import encoder_note
from lora_ext.study.statistics import finished

logger = logging.getLogger("lora_ext")


def write_plots(results: Mapping[str, Any], out: str | os.PathLike[str]) -> list[Path]:
    """Write the study's plots to `out/plots`.

    Args:
        results: the content of results.json.
        out: the study's folder, to which the runs' folders are relative.

    Returns:
        The files: dice_per_region.png, dice_against_parameters.png, learning_curves.png, and
        overlays.png where evaluation drew pictures; none when no run has finished.
    """
    folder = Path(out) / "plots"
    if not finished(results):
        logger.info("no run has finished: nothing to plot")
        return []
    figures = {
        "dice_per_region": dice_per_region(results),
        "dice_against_parameters": dice_against_parameters(results),
        "learning_curves": learning_curves(results),
        "overlays": overlay_page(results, Path(out)),
    }
    written = []
    for name, figure in figures.items():
        if figure is None:
            logger.info("evaluation drew no pictures of the cases: no %s.png", name)
            continue
        if name != "overlays":  # pasted pictures, without room for a note
            footnote(figure, encoder_note(results))
        with whole_file(folder / f"{name}.png") as draft:
            figure.savefig(draft, format="png")
        written.append(folder / f"{name}.png")
    return written
