"""The encoder of a masked auto-encoder on whole volumes: what the pre-training bundle exports.

volume (B, 1, H, W, D) -> all patches, none hidden -> ViT -> features (B, hidden, H/16, W/16, D/16)
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lora_ext.pretraining.autoencoder import VolumeAutoEncoder


class VolumeEncoder(VolumeAutoEncoder):
    """The auto-encoder's normed encoder output as a volume of features, with no patch hidden.

    One tensor in, one tensor out, nothing drawn at random: the form that MONAI's
    ``verify_net_in_out`` and exports take. The parameters are the auto-encoder's under the same
    names, its decoder's included, so that ``model.pt`` fits as it is.

    Args:
        img_size: input size in voxels, three multiples of 16.
        **sizes: as for `VolumeAutoEncoder`.
    """

    def autoencoder(self) -> VolumeAutoEncoder:
        """The auto-encoder on these very parameters, not on copies."""
        network = copy.copy(self)
        network.__class__ = VolumeAutoEncoder  # type: ignore[assignment]
        return network

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Encode volumes.

        Args:
            x: volumes, shape (B, 1, H, W, D), of the size given at construction.

        Returns:
            Features, shape (B, hidden_size, H/16, W/16, D/16).
        """
        tokens = self.patch_embedding(x)
        cls_tokens = self.cls_token.expand(x.shape[0], -1, -1)
        tokens = self.blocks(torch.cat((cls_tokens, tokens), dim=1))[:, 1:]
        h, w, d = self.patch_size
        rows = tokens.transpose(1, 2)
        return rows.reshape(x.shape[0], -1, x.shape[2] // h, x.shape[3] // w, x.shape[4] // d)


__all__ = ["VolumeEncoder"]
