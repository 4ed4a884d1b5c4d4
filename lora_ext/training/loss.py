"""Dice + cross-entropy for overlapping regions (paper section 2.3).

A voxel of enhancing tumour lies in all three BraTS regions at once, so each region is a yes/no
question of its own: sigmoid outputs and a *binary* cross-entropy per region. MONAI's
``DiceCELoss(sigmoid=True)`` takes the softmax cross-entropy when there are several channels, which
makes the regions compete.
"""

from __future__ import annotations

import ignite.distributed as idist
import torch
from monai.losses.utils import compute_tp_fp_fn
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from lora_ext.training.processes import sum_over_processes

SMOOTH = 1e-5  # as in MONAI's DiceLoss; a region neither there nor predicted costs nothing


class RegionDiceCELoss(nn.Module):
    """Soft Dice over sigmoid outputs plus binary cross-entropy, each a mean over regions.

    Dice sums intersection and size over the batch, as MONAI's ``DiceLoss(batch=True)`` does, so
    that a crop without a region does not alone cost a whole Dice. In training with several
    processes that is the batch of them all: each gets the loss and, by
    ``DistributedDataParallel``, the gradient of one process with the whole batch.

    Args:
        dice_weight: factor of the Dice term.
        ce_weight: factor of the cross-entropy term.
    """

    def __init__(self, dice_weight: float = 1.0, ce_weight: float = 1.0) -> None:
        super().__init__()
        self.cross_entropy = nn.BCEWithLogitsLoss()
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight

    def forward(self, logits: Tensor, regions: Tensor) -> Tensor:
        """Compute the loss in float32, also where the network runs in half precision.

        Args:
            logits: network output, shape (B, R, H, W, D).
            regions: ground truth, 0 or 1, same shape.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: if the shapes differ.
        """
        if logits.shape != regions.shape:
            raise ValueError(
                f"logits and regions must have one shape; got {tuple(logits.shape)} "
                f"and {tuple(regions.shape)}"
            )
        logits, regions = _plain(logits), _plain(regions)
        cross_entropy = self.cross_entropy(logits, regions)
        tp, fp, fn = compute_tp_fp_fn(
            logits.sigmoid(), regions, [0, 2, 3, 4], ord=1, soft_label=False
        )
        if logits.requires_grad:  # else this is no training step, and the others may not be in one
            terms = sum_over_processes(torch.cat([tp, fp, fn, cross_entropy.reshape(1)]))
            tp, fp, fn = terms[:-1].chunk(3)
            cross_entropy = terms[-1] / idist.get_world_size()
        dice = _dice(tp, fp, fn)
        return self.dice_weight * dice + self.ce_weight * cross_entropy


def _plain(values: Tensor) -> Tensor:
    """At least float32, and without MONAI's meta data, which are slow to carry along."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    return convert_to_tensor(values, dtype=dtype, track_meta=False)


def _dice(tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
    """Soft Dice loss from the sums of every region, each of shape (R,)."""
    sizes = 2 * tp + fp + fn
    return (1 - (2 * tp + SMOOTH) / (sizes + SMOOTH)).mean()
