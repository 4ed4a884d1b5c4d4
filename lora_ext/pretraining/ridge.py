"""Ridge regression in closed form, cross-validated over groups that stay together."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGES = tuple(10.0**power for power in range(-5, 3))  # times the mean square of a row's features


def cross_validated(x: Tensor, y: Tensor, folds: Tensor) -> list[list[float | None]]:
    """Compute R^2 of ridge regressions on the rows that each has not seen.

    The strength of the ridge is chosen for each fold on the others alone, of which each is left out
    in turn. Features are brought to one scale over all rows, which needs no target.

    Args:
        x: features, shape (n, F).
        y: targets, shape (n, T).
        folds: the fold of each row, shape (n,), 0, 1, ...; three or more.

    Returns:
        R^2 by fold and target; None where a target does not vary in the fold.
    """
    x, y = x.double(), y.double()
    x = (x - x.mean(dim=0)) / x.std(dim=0).clamp(min=1e-6)
    kernel = x @ x.T / x.shape[1]
    return [_held_out(kernel, y, folds, fold) for fold in range(int(folds.max()) + 1)]


def _held_out(kernel: Tensor, y: Tensor, folds: Tensor, fold: int) -> list[float | None]:
    others = [n for n in range(int(folds.max()) + 1) if n != fold]
    scale = y.var(dim=0).clamp(min=1e-12)
    missed = torch.zeros(len(RIDGES), dtype=y.dtype)
    for left_out in others:
        train, test = (folds != fold) & (folds != left_out), folds == left_out
        predictions = _predictions(kernel, y, train, test)
        missed += ((predictions - y[test]) ** 2 / scale).sum(dim=(1, 2))
    test = folds == fold
    predicted = _predictions(kernel, y, ~test, test)[missed.argmin()]
    left = ((predicted - y[test]) ** 2).sum(dim=0)
    total = ((y[test] - y[test].mean(dim=0)) ** 2).sum(dim=0)
    return [float(1 - a / b) if b > 0 else None for a, b in zip(left, total, strict=True)]


def _predictions(kernel: Tensor, y: Tensor, train: Tensor, test: Tensor) -> Tensor:
    """Predict the test rows by every ridge, shape (ridges, rows, T)."""
    level = y[train].mean(dim=0)
    values, vectors = torch.linalg.eigh(kernel[train][:, train])
    onto = vectors.T @ (y[train] - level)
    from_train = kernel[test][:, train] @ vectors
    return torch.stack([from_train @ (onto / (values + r)[:, None]) + level for r in RIDGES])
