"""What the auto-encoder learns: the hidden patches, each on the scale of its own mean and contrast.

Every target patch is brought to zero mean and unit variance (He et al. 2022, section 4.1), so a
prediction of nothing but the patch's mean costs about 1, and the loss says which share of the
detail inside patches is missed.
"""

from __future__ import annotations

from torch import Tensor, nn

from lora_ext.pretraining.patches import patch_statistics, to_patches
from lora_ext.processes import count, sum_over_processes


class MaskedPatchLoss(nn.Module):
    """Mean squared error over the voxels of the hidden patches, in float32.

    In training with several processes, each gets the mean over all of them; every volume has as
    many hidden patches, so that is the loss of one process with the whole batch.
    """

    def forward(self, output: tuple[Tensor, Tensor], volume: Tensor) -> Tensor:
        """Compare predicted patches with the volume's.

        Args:
            output: predicted patches (B, N, 4096) and the mask (B, N), 1 where hidden.
            volume: the volumes, shape (B, 1, H, W, D).

        Returns:
            The loss, a scalar.
        """
        patches, mask = output
        loss = _over_hidden((patches.float() - normalised_patches(volume)) ** 2, mask)
        # Without a gradient this is no training step, and the others may not be in one.
        return sum_over_processes(loss) / count() if loss.requires_grad else loss


def normalised_patches(volume: Tensor) -> Tensor:
    """The target: patches (B, N, 4096) of zero mean and unit variance; constant ones are zero."""
    patches = to_patches(volume.float())
    mean, deviation = patch_statistics(patches)
    return (patches - mean) / deviation


def mean_only_loss(volume: Tensor, mask: Tensor) -> Tensor:
    """The loss of predicting each hidden patch's own mean, which no model is told.

    Args:
        volume: the volumes, shape (B, 1, H, W, D).
        mask: shape (B, N), 1 where hidden.

    Returns:
        The loss, a scalar: the share of hidden patches that are not constant.
    """
    return _over_hidden(normalised_patches(volume) ** 2, mask)


def _over_hidden(error: Tensor, mask: Tensor) -> Tensor:
    hidden = mask.float()
    return (error.mean(dim=-1) * hidden).sum() / hidden.sum()
