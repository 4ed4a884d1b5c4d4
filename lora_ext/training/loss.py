"""Dice + cross-entropy for overlapping regions (paper section 2.3).

A voxel of enhancing tumour lies in all three BraTS regions at once, so each region is a yes/no
question of its own: sigmoid outputs and a *binary* cross-entropy per region. MONAI's
``DiceCELoss(sigmoid=True)`` takes the softmax cross-entropy when there are several channels, which
makes the regions compete.
"""

from __future__ import annotations

from monai.losses import DiceLoss
from torch import Tensor, nn


class RegionDiceCELoss(nn.Module):
    """Soft Dice over sigmoid outputs plus binary cross-entropy, each a mean over regions.

    Dice sums intersection and size over the batch (``batch=True``), so that a crop without a
    region does not by itself cost a whole Dice.

    Args:
        dice_weight: factor of the Dice term.
        ce_weight: factor of the cross-entropy term.
    """

    def __init__(self, dice_weight: float = 1.0, ce_weight: float = 1.0) -> None:
        super().__init__()
        self.dice = DiceLoss(sigmoid=True, batch=True)
        self.cross_entropy = nn.BCEWithLogitsLoss()
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight

    def forward(self, logits: Tensor, regions: Tensor) -> Tensor:
        """Compute the loss in float32, whatever precision the network runs in.

        Args:
            logits: network output, shape (B, R, H, W, D).
            regions: truth, 0 or 1, same shape.

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
        logits, regions = logits.float(), regions.float()
        dice = self.dice(logits, regions)
        return self.dice_weight * dice + self.ce_weight * self.cross_entropy(logits, regions)
