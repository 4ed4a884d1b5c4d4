"""Results as pictures: Dice by region and by parameters, learning curves, cases."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from textwrap import wrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from lora_ext.bundles.generator import REGIMES
from lora_ext.evaluation.page import figure_path
from lora_ext.files import whole_file
from lora_ext.study.comparisons import MAIN, main_regime
from lora_ext.study.pages import encoder_note
from lora_ext.study.paper import PAPER_ENCODER_PARAMETERS, PAPER_TABLE_1, title
from lora_ext.study.results import dice_frame, finished_runs, run_frame, titles

logger = logging.getLogger("lora_ext")
WIDTH = 10.0
# Okabe and Ito's palette, safe for colour-blind readers; the ranks are one hue, light to dark.
COLOURS = ("#9A9A9A", "#0072B2", "#56B4E9", "#7FD3B5", "#009E73", "#00513B")
REGIME_COLOURS = dict(zip(REGIMES, COLOURS, strict=True))
OTHER_COLOURS = ("#D55E00", "#CC79A7", "#E69F00", "#F0E442", "#000000")
DOTS: dict[str, Any] = {"marker": "o", "markersize": 4.5, "markeredgecolor": "white", "ls": ""}
PAPER: dict[str, Any] = {"marker": "D", "markersize": 6, "markerfacecolor": "white", "ls": ""}
CURVES = {"loss": "training loss", "val_pooled_dice": "validation pooled Dice"}


def write_plots(results: Mapping[str, Any], out: str | os.PathLike[str]) -> list[Path]:
    """Write the study's plots to `out/plots`, overlays.png only where evaluation drew pictures."""
    if not finished_runs(results):
        logger.info("no run has finished: nothing to plot")
        return []
    figures = {
        "dice_per_region": dice_per_region(results),
        "dice_against_parameters": dice_against_parameters(results),
        "learning_curves": learning_curves(results),
    }
    if page := overlays(results, Path(out)):
        figures["overlays"] = page
    else:
        logger.info("evaluation drew no pictures of the cases: no overlays.png")
    folder, runs = Path(out) / "plots", run_frame(results)
    return [save(figure, folder / f"{name}.png", runs) for name, figure in figures.items()]


def save(figure: Figure, path: Path, runs: pd.DataFrame) -> Path:
    """Write a figure, with a note below it on what the runs' encoders started from."""
    lines = wrap(encoder_note(runs, mark="", most=3), int(14 * figure.get_figwidth()))
    note = figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8)
    note.set(color="#444444", parse_math=False)  # a file's name may hold a $
    with whole_file(path) as draft:
        figure.savefig(draft, format="png")
    return path


def dice_per_region(results: Mapping[str, Any]) -> Figure:
    """Draw mean Dice per region and regime as bars, single runs as dots, a panel per data set."""
    runs, dice = run_frame(results), dice_frame(results)
    palette, datasets = colours(runs), list(dice.groupby("dataset"))
    figure, panels = canvas(len(datasets), 1, 0.7 + 3.3 * len(datasets))
    for axes, (dataset, own) in zip(panels, datasets, strict=True):
        measures, regimes = (list(own[key].sort_values().unique()) for key in ("measure", "regime"))
        width = 0.86 / len(regimes)
        for regime, found in own.groupby("regime"):
            shift = (regimes.index(regime) - (len(regimes) - 1) / 2) * width
            found = found.assign(x=[measures.index(name) + shift for name in found["measure"]])
            means = found.groupby("x")["value"].agg(["mean", "max"])
            axes.bar(means.index, means["mean"], 0.92 * width, color=palette[str(regime)])
            axes.plot(found["x"], found["value"], color="black", **DOTS)
            style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9, "ha": "center"}
            style["rotation"] = 90 if len(regimes) * len(measures) > 12 else 0
            for x, mean, top in means.itertuples():
                axes.annotate(f"{mean:.3f}", (x, top), (0, 6), **style)
        axes.set_xticks(range(len(measures)), [title(name) for name in measures])
        axes.set_yticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
        axes.set_ylim(0, 1.25)
        dress(axes, title(str(dataset)), y="Dice")
    _legend(figure, runs, Line2D([], [], color="black", label="single run", **DOTS))
    return figure


def dice_against_parameters(results: Mapping[str, Any]) -> Figure:
    """Draw pooled Dice against the number of trained parameters, a panel per data set.

    Error bars are the sample standard deviation over runs. The paper's points stand at the same
    parameters, where the study's network has the paper's size.
    """
    runs, dice = run_frame(results), dice_frame(results)
    dice = dice[dice["measure"] == MAIN]
    palette, datasets = colours(runs), list(runs.groupby("dataset"))
    figure, panels = canvas(1, len(datasets), 4.6, WIDTH if len(datasets) > 1 else 7.0)
    for axes, (dataset, own) in zip(panels, datasets, strict=True):
        paper = PAPER_TABLE_1.get(str(dataset), {}).get(MAIN, {})
        counts = own.groupby("regime")[["parameters.trainable", "parameters.encoder"]].first()
        values = dice[dice["dataset"] == dataset].groupby("regime")["value"].agg(["mean", "std"])
        points = counts.join(values.fillna({"std": 0.0})).dropna(subset="parameters.trainable")
        for regime, x, encoder, mean, std in points.itertuples():
            if encoder == PAPER_ENCODER_PARAMETERS and regime in paper:
                axes.plot(x, paper[regime], color=palette[regime], **PAPER)
            axes.errorbar(x, mean, std, fmt="o", color=palette[regime], markersize=8, capsize=3)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.15)
        dress(axes, title(str(dataset)), "trained parameters", "pooled Dice")
    drawn = any(line.get_marker() == "D" for axes in panels for line in axes.lines)
    marks = [Line2D([], [], color="black", label="the paper, other data", **PAPER)] if drawn else []
    _legend(figure, runs, Line2D([], [], marker="o", color="black", label="mean ± std"), *marks)
    return figure


def learning_curves(results: Mapping[str, Any]) -> Figure:
    """Draw loss and Dice by epoch: the mean over runs, in a band from the lowest to the highest."""
    runs = run_frame(results)
    palette, datasets = colours(runs), list(runs["dataset"].sort_values().unique())
    figure, panels = canvas(len(datasets), 2, 0.8 + 3.4 * len(datasets))
    curves = {quantity: over_runs(results, quantity) for quantity in CURVES}
    for axes, (dataset, quantity) in zip(panels, product(datasets, CURVES), strict=True):
        dress(axes, f"{title(dataset)}: {CURVES[quantity]}", "epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        for regime, curve in curves[quantity].query("dataset == @dataset").groupby("regime"):
            x, colour = curve["epoch"], palette[str(regime)]
            marker = "o" if len(curve) < 40 else ""
            axes.plot(x, curve["mean"], color=colour, marker=marker, markersize=3.5)
            axes.fill_between(x, curve["min"], curve["max"], color=colour, alpha=0.2, lw=0)
    _legend(figure, runs)
    return figure


def over_runs(results: Mapping[str, Any], quantity: str) -> pd.DataFrame:
    """Sum a curve up: dataset, regime, epoch, and mean, min and max over the runs that have it."""
    points = [
        (place, point["epoch"], point.get(quantity))
        for place, run in enumerate(finished_runs(results))
        for point in run.get("curve") or []
    ]
    frame = pd.DataFrame(points, columns=["run", "epoch", "value"]).astype({"value": float})
    frame = frame.dropna().join(run_frame(results)[["dataset", "regime"]], on="run")
    sums = frame.groupby(["dataset", "regime", "epoch"])["value"].agg(["mean", "min", "max"])
    return sums.reset_index()


def overlays(results: Mapping[str, Any], out: Path) -> Figure | None:
    """Paste the main regime's best, median and worst case, a column per data set; None without."""
    columns = []
    for dataset, own in run_frame(results).groupby("dataset"):
        if (regime := main_regime(own)) is not None:
            head = f"{title(str(dataset))}, {titles(own)[regime]}"
            columns.append((head, examples(results, str(dataset), regime)))
    paths = [out / path for _, found in columns for path in found["picture"]]
    pictures = {path: imread(path) for path in paths if path.is_file()}
    if not pictures:
        return None
    rows, across = max(len(found) for _, found in columns), WIDTH / max(len(columns), 1.4)
    ratio = max(picture.shape[0] / picture.shape[1] for picture in pictures.values())
    height = rows * (0.55 + across * ratio)
    figure, panels = canvas(rows, len(columns), height, across * len(columns))
    for axes in panels:
        axes.set_axis_off()
    for column, (head, found) in enumerate(columns):
        for axes, case in zip(panels[column :: len(columns)], found.itertuples(), strict=False):
            about = f"{head}: {case.Index}\nseed {case.seed}, pooled Dice {case.value:.3f}"
            axes.set_title(about, loc="left", fontsize=11)
            if (out / case.picture) in pictures:
                axes.imshow(pictures[out / case.picture], interpolation="antialiased")
            else:
                note = f"no picture of {case.case}:\n{case.picture.parent}/\n{case.picture.name}"
                axes.text(0.5, 0.5, note, ha="center", fontsize=8)
    return figure


def examples(results: Mapping[str, Any], dataset: str, regime: str) -> pd.DataFrame:
    """Choose the best, the median and the worst case by pooled Dice, over all of a regime's runs.

    Of an even number the median is the lower of the two in the middle; of fewer than three there is
    none. The column ``picture`` is relative to the study's folder.
    """
    dice = dice_frame(results, per_case=True)
    own = dice[(dice["dataset"] == dataset) & (dice["regime"] == regime)]
    ranked = own[own["measure"] == MAIN].sort_values("value", ascending=False, kind="stable")
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    kinds = ["best", "median", "worst"] if len(ranked) > 2 else ["best", "worst"][: len(ranked)]
    chosen = ranked.iloc[[places[kind] for kind in kinds]]
    pairs = zip(chosen["folder"], chosen["case"], strict=True)
    pictures = [Path(folder) / "eval" / figure_path(case) for folder, case in pairs]
    return chosen.assign(picture=pictures, kind=kinds).set_index("kind")


def canvas(rows: int, columns: int, height: float, width: float = WIDTH) -> tuple[Figure, list]:
    """Return a figure that belongs to no global state, in inches, and its axes row by row."""
    figure = Figure((width, height), dpi=150, layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def colours(runs: pd.DataFrame) -> dict[str, str]:
    """Return a colour per regime; those of the paper's regimes do not depend on the others."""
    others = [n for n in runs["regime"].sort_values().unique() if n not in REGIME_COLOURS]
    more = OTHER_COLOURS * (1 + len(others) // len(OTHER_COLOURS))
    return REGIME_COLOURS | dict(zip(others, more, strict=False))


def dress(axes: Axes, head: str, x: str = "", y: str = "") -> None:
    """Give axes a title, labels and a light grid behind the data."""
    axes.set_title(head, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel(x, fontsize=11)
    axes.set_ylabel(y, fontsize=11)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, runs: pd.DataFrame, *more: Line2D) -> None:
    palette = colours(runs)
    patches = [Patch(color=palette[name], label=text) for name, text in titles(runs).items()]
    columns = int(figure.get_figwidth() / 2.6)
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": columns, "frameon": False}
    figure.legend(handles=[*patches, *more], **place)
