"""The key metric of training: one Dice pooled over all cases' and regions' voxels."""

from __future__ import annotations

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric

from lora_ext.evaluation.masks import dice_from_counts, voxel_counts


class PooledDice(CumulativeIterationMetric):
    """Dice pooled over all voxels of all regions of all cases.

    That is 2 sum |P and T| / sum (|P| + |T|), and 1 where nothing is true and nothing predicted.
    It is used as MONAI's `DiceMetric` is: call it with binary batches (or lists of channel-first
    masks), then `aggregate()`. Each case adds one row [2 |P and T|, |P| + |T|] of voxel counts;
    the rows of all ranks are gathered (a case that a sampler gave to two ranks counts twice, as in
    every MONAI metric). In training:

        IgniteMetricHandler(PooledDice(), output_transform=from_engine(["pred", "label"]))
    """

    def _compute_tensor(
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Count one batch of masks (B, R, H, W, D).

        Args:
            y_pred: binary predictions.
            y: binary truth of the same shape.
            kwargs: unused; part of MONAI's signature.

        Returns:
            Whole numbers of shape (B, 2): 2 |P and T| and |P| + |T| over the regions.

        Raises:
            ValueError: `y` is missing, shapes differ, or a value is neither 0 nor 1.
        """
        if y is None:
            raise ValueError("PooledDice got no truth; call it with (prediction, truth)")
        intersection, predicted, true = voxel_counts(y_pred, y).sum(dim=1).unbind(dim=-1)
        return torch.stack([2 * intersection, predicted + true], dim=-1)

    def aggregate(self) -> float:
        """Return the Dice over everything counted since the last `reset()`, on all ranks.

        Raises:
            ValueError: nothing was counted.
        """
        counts = self.get_buffer()
        if counts is None:
            raise ValueError("PooledDice has counted no case; call it before aggregate()")
        return dice_from_counts(*counts.sum(dim=0).tolist())
