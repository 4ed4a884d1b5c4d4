"""Learning curves: training loss and validation Dice by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_ext.study.drawing import WIDTH_INCHES, colours, dress, new_figure
from lora_ext.study.paper import dataset_title, regime_title
from lora_ext.study.statistics import Record, by_regime

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTITIES = {"loss": "training loss", "val_pooled_dice": "validation pooled Dice"}


def learning_curves(results: Mapping[str, Any]) -> Figure:
    """Draw loss and validation pooled Dice by epoch, one row per data set.

    A line is the mean over a regime's runs, the band around it reaches from the lowest to the
    highest run.

    Args:
        results: the content of results.json, with at least one finished run.

    Returns:
        A figure that belongs to no global state.
    """
    from matplotlib.ticker import MaxNLocator

    tables = by_regime(results)
    figure = new_figure(0.8 + 3.4 * len(tables), WIDTH_INCHES)
    panels = figure.subplots(len(tables), 2, squeeze=False, sharex="row")
    palette = colours(name for regimes in tables.values() for name in regimes)
    drawn: dict[str, Any] = {}
    for row, (dataset, regimes) in zip(panels, tables.items(), strict=True):
        for axes, (quantity, title) in zip(row, QUANTITIES.items(), strict=True):
            dress(axes, f"{dataset_title(dataset)}: {title}", "epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
            for name, runs in regimes.items():
                curve = over_runs(runs, quantity)
                if not len(curve):
                    continue
                style = {"marker": "o", "markersize": 3.5} if len(curve) < 40 else {}
                (line,) = axes.plot(curve[:, 0], curve[:, 1], color=palette[name], **style)
                axes.fill_between(*curve[:, (0, 2, 3)].T, color=palette[name], alpha=0.2, lw=0)
                drawn[regime_title(name)] = line
    if drawn:
        figure.legend(
            handles=list(drawn.values()),
            labels=list(drawn),
            loc="outside upper center",
            ncol=8,
            frameon=False,
            fontsize=10,
        )
    return figure


def over_runs(runs: Sequence[Record], quantity: str) -> np.ndarray:
    """Sum a curve up over runs.

    Args:
        runs: a regime's runs.
        quantity: `loss` or `val_pooled_dice`.

    Returns:
        One row per epoch that any run measured: epoch, mean, lowest, highest; shape (E, 4).
    """
    found: dict[int, list[float]] = {}
    for run in runs:
        for point in run.get("curve") or []:
            if point.get(quantity) is not None:
                found.setdefault(point["epoch"], []).append(point[quantity])
    rows = [(e, np.mean(v), min(v), max(v)) for e, v in sorted(found.items())]
    return np.array(rows, dtype=float).reshape(-1, 4)
