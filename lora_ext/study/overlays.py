"""A page of the best, median and worst case, pasted from the pictures that evaluation drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_ext.evaluation.page import figure_path
from lora_ext.study.drawing import DOTS_PER_INCH, WIDTH_INCHES, new_figure
from lora_ext.study.pairs import main_regime
from lora_ext.study.paper import dataset_title, regime_title
from lora_ext.study.statistics import Record, by_regime

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_INCHES = 7.0  # where there is one column only
TITLE_INCHES = 0.45
GAP_INCHES = 0.06
NOTE_RATIO = 0.4  # height over width of the note in place of a picture


@dataclass(frozen=True)
class Example:
    """One case of one run, worth showing.

    Attributes:
        kind: `best`, `median` or `worst`.
        case: its name.
        dice: its pooled Dice.
        seed: of the run.
        picture: path of the case's figure, relative to the study's folder.
    """

    kind: str
    case: str
    dice: float
    seed: int
    picture: Path


def examples(runs: Sequence[Record]) -> list[Example]:
    """Choose the best, the median and the worst case by pooled Dice, over all runs.

    With an even number of cases the median is the lower of the two in the middle; with fewer
    than three, there is no median.

    Args:
        runs: a regime's runs on one data set.
    """
    found = [
        (case["pooled_dice"], case["case"], run["seed"], _picture(run, case["case"]))
        for run in runs
        for case in run["cases"]
    ]
    found.sort(key=lambda item: item[0], reverse=True)
    places = {"best": 0, "median": len(found) // 2, "worst": len(found) - 1}
    if len(found) < 3:
        places.pop("median")
    if len(found) < 2:
        places.pop("worst")
    return [
        Example(kind, case, dice, seed, picture)
        for kind, place in (places if found else {}).items()
        for dice, case, seed, picture in [found[place]]
    ]


def overlay_page(results: Mapping[str, Any], out: Path) -> Figure | None:
    """Paste best, median and worst case of the main regime, one column per data set.

    Args:
        results: the content of results.json.
        out: the study's folder, to which the runs' folders are relative.

    Returns:
        A figure that belongs to no global state, with a note where a picture is missing; None
        when there is no picture at all.
    """
    columns = {}
    for dataset, regimes in by_regime(results).items():
        name = main_regime(regimes)
        if name is not None:
            columns[f"{dataset_title(dataset)}, {regime_title(name)}"] = examples(regimes[name])
    pictures = {
        example.picture: _read(out / example.picture)
        for chosen in columns.values()
        for example in chosen
        if (out / example.picture).is_file()
    }
    return _paste(columns, pictures) if pictures else None


def _paste(columns: Mapping[str, Sequence[Example]], pictures: Mapping[Path, np.ndarray]) -> Figure:
    """Lay the pictures out in rows that are as high as their highest picture."""
    across = WIDTH_INCHES if len(columns) > 1 else COLUMN_INCHES
    width = across / len(columns)
    rows = list(zip_longest(*columns.values()))
    heights = [
        TITLE_INCHES + max(width * _ratio(example, pictures) for example in row) for row in rows
    ]
    page = sum(heights)
    figure = new_figure(page, across, layout=None)
    top = page
    for row, height in zip(rows, heights, strict=True):
        for column, (title, example) in enumerate(zip(columns, row, strict=True)):
            if example is not None:
                figure.text(
                    (column * width + 0.05) / across,
                    (top - TITLE_INCHES + 0.06) / page,
                    f"{title}: {example.kind}\nseed {example.seed}, pooled Dice {example.dice:.3f}",
                    fontsize=11,
                    va="bottom",
                )
                high = (width - GAP_INCHES) * _ratio(example, pictures)
                box = (column * width, top - TITLE_INCHES - high, width - GAP_INCHES, high)
                place = (box[0] / across, box[1] / page, box[2] / across, high / page)
                _show(figure.add_axes(place), example, pictures.get(example.picture))
        top -= height
    return figure


def _show(axes: Axes, example: Example, picture: np.ndarray | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    if picture is None:
        note = f"no picture of {example.case}:\n{example.picture.parent.as_posix()}/\n"
        axes.text(0.5, 0.5, note + example.picture.name, ha="center", va="center", fontsize=8)
    else:
        axes.imshow(picture, interpolation="antialiased", aspect="auto")
        axes.set_axis_off()


def _ratio(example: Example | None, pictures: Mapping[Path, np.ndarray]) -> float:
    """Return height over width of an example's picture, or of the note in its place."""
    if example is None:
        return 0.0
    picture = pictures.get(example.picture)
    return NOTE_RATIO if picture is None else picture.shape[0] / picture.shape[1]


def _picture(run: Record, case: str) -> Path:
    return Path(run["folder"]) / "eval" / figure_path(case)


def _read(path: Path) -> np.ndarray:
    """Read a picture, no wider than the page has pixels: RGB of shape (height, width, 3)."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((int(WIDTH_INCHES * DOTS_PER_INCH), 10_000))
    return np.asarray(small)
