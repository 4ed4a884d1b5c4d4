"""Ridge regression against its normal equations, and what cross-validation must not see."""

import numpy as np
import pytest
import torch

from lora_ext.pretraining.ridge import RIDGES, _predictions, cross_validated


@pytest.fixture
def rows():
    """120 rows of 12 features in six folds; one target is linear in them, the other noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 12))
    y = np.stack([x @ rng.normal(size=12), rng.normal(size=120)], axis=1)
    return torch.from_numpy(x), torch.from_numpy(y), torch.arange(120) % 6


def test_every_ridge_solves_its_normal_equations(rows):
    x, y, folds = (part.numpy() for part in rows)
    train = folds != 2
    kernel = torch.from_numpy(x @ x.T / 12)
    found = _predictions(kernel, rows[1], torch.from_numpy(train), torch.from_numpy(~train))
    level = y[train].mean(axis=0)
    for ridge, ours in zip(RIDGES, found.numpy(), strict=True):
        a = x[train].T @ x[train] + 12 * ridge * np.eye(12)
        weights = np.linalg.solve(a, x[train].T @ (y[train] - level))
        assert ours == pytest.approx(x[~train] @ weights + level, abs=1e-8)


def test_linear_target_is_explained_and_noise_is_not(rows):
    scores = torch.tensor(cross_validated(*rows))
    assert scores.shape == (6, 2)
    assert scores[:, 0].min() > 0.9
    assert scores[:, 1].max() < 0.3
    assert scores[:, 1].mean() < 0.05


def test_a_fold_is_predicted_without_its_own_targets(rows):
    x, y, folds = rows
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype)
    other = torch.where((folds == 0)[:, None], noise, y)
    assert cross_validated(x, other, folds)[0][0] < 0.1  # nothing of fold 0 was learnt by heart


def test_features_on_any_scale_score_the_same(rows):
    x, y, folds = rows
    scaled = x * torch.logspace(-3, 3, 12) + 5
    ours, theirs = (torch.tensor(cross_validated(f, y, folds)) for f in (x, scaled))
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_target_that_a_fold_lacks_has_no_score(rows):
    x, y, folds = rows
    y = torch.where((folds == 3)[:, None], torch.zeros(()), y)
    scores = cross_validated(x, y, folds)
    assert scores[3] == [None, None]
    assert scores[0][0] is not None
