"""The masked-patch loss, the patches it compares, and volumes rebuilt from predicted patches.

Every target patch is brought to zero mean and unit variance (He et al. 2022, section 4.1). So
predicting nothing but a patch's mean costs about 1, and the loss is the share of the detail inside
patches that is missed.
"""

from __future__ import annotations

import ignite.distributed as idist
from einops import rearrange
from torch import Tensor, nn

from lora_ext.networks.encoder import PATCH_SIZE
from lora_ext.training.processes import sum_over_processes

ROWS = "b c (h p1) (w p2) (d p3) -> b (h w d) (p1 p2 p3 c)"
SIDES = {"p1": PATCH_SIZE, "p2": PATCH_SIZE, "p3": PATCH_SIZE}
LEAST_VARIANCE = 1e-6  # He et al. 2022; keeps patches of air at zero


def to_patches(volume: Tensor) -> Tensor:
    """Cut volumes into patches, in the order of the encoder's tokens.

    Args:
        volume: shape (B, 1, H, W, D), sides in whole patches of 16 voxels.

    Returns:
        Patches of shape (B, N, 4096).
    """
    return rearrange(volume, ROWS, **SIDES)


def from_patches(patches: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Put patches back together: the inverse of `to_patches`.

    Args:
        patches: shape (B, N, 4096).
        size: H, W, D of the volume in voxels.

    Returns:
        Volumes of shape (B, 1, H, W, D).
    """
    before, after = ROWS.split(" -> ")
    grid = {axis: side // PATCH_SIZE for axis, side in zip("hwd", size, strict=True)}
    return rearrange(patches, f"{after} -> {before}", **SIDES, **grid)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean and standard deviation of every patch.

    Args:
        patches: shape (B, N, 4096).

    Returns:
        Two tensors of shape (B, N, 1); the standard deviation is never zero.
    """
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return mean, (variance + LEAST_VARIANCE).sqrt()


def reconstruct(volume: Tensor, patches: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Rebuild volumes from predicted patches.

    The network predicts a patch's detail, but neither its mean nor its contrast; as in He et al.
    2022, both are taken from the input. `means` shows what the means alone would look like.

    Args:
        volume: the input, shape (B, 1, H, W, D).
        patches: predicted patches, shape (B, N, 4096).
        mask: shape (B, N), 1 where hidden.

    Returns:
        Volumes (B, 1, H, W, D): ``hidden`` (1 where hidden), ``reconstruction`` (visible patches
        as they are, hidden ones predicted) and ``means`` (hidden ones by their mean alone).
    """
    size = (volume.shape[2], volume.shape[3], volume.shape[4])
    own = to_patches(volume.float())
    mean, deviation = patch_statistics(own)
    hidden = mask.unsqueeze(-1).to(own.dtype).expand_as(own)
    predicted = patches.float() * deviation + mean
    return {
        "hidden": from_patches(hidden, size),
        "reconstruction": from_patches(own * (1 - hidden) + predicted * hidden, size),
        "means": from_patches(own * (1 - hidden) + mean * hidden, size),
    }


class MaskedPatchLoss(nn.Module):
    """Mean squared error over the voxels of the hidden patches, in float32.

    In training with several processes, each gets the mean over all of them. Every volume hides
    the same number of patches, so this is the loss of one process with the whole batch.
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
        # Without a gradient this is no training step; the other processes may not be here to sum.
        return sum_over_processes(loss) / idist.get_world_size() if loss.requires_grad else loss


def normalised_patches(volume: Tensor) -> Tensor:
    """Compute the target: patches of zero mean and unit variance; constant ones are zero.

    Args:
        volume: the volumes, shape (B, 1, H, W, D).

    Returns:
        Patches of shape (B, N, 4096), in float32.
    """
    patches = to_patches(volume.float())
    mean, deviation = patch_statistics(patches)
    return (patches - mean) / deviation


def mean_only_loss(volume: Tensor, mask: Tensor) -> Tensor:
    """Compute the loss of predicting each hidden patch's own mean, which the network never sees.

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
