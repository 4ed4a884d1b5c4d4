"""The masked auto-encoder: MONAI's, around exactly the encoder that a segmentation network takes.

volume (B, 1, H, W, D)
|-- patches, three quarters of them hidden
|-- ViT on the visible ones               <- what `pretrained` loads
|-- small ViT on visible and mask tokens
`-- voxels of every patch (B, N, 4096), and which were hidden (B, N)

He et al. 2022, arXiv:2111.06377 (paper section 2.2). What the bundle exports is the encoder alone,
on whole volumes: (B, 1, H, W, D) -> features (B, hidden, H/16, W/16, D/16).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets import MaskedAutoEncoderViT
from torch import Tensor, nn

from lora_ext.networks.config import refuse_misfit
from lora_ext.networks.encoder import PATCH_SIZE
from lora_ext.networks.loading import refuse_no_weights

SINCOS_MULTIPLE = 6  # a sine and a cosine for each of three axes


class VolumeAutoEncoder(MaskedAutoEncoderViT):
    """MONAI's masked auto-encoder on one-channel volumes, for pre-training the shared encoder.

    Its encoder has the sizes, and after `save_encoder` the keys, of `ChannelEncoder`. The
    ``norm_cross_attn`` tensors that MONAI 1.6.1 creates and never uses are left out, as there.

    Args:
        img_size: input size in voxels, three multiples of 16.
        masking_ratio: share of the patches that are hidden, between 0 and 1.
        hidden_size: width of a token, a multiple of 6 (the fixed position embedding needs it).
        mlp_dim: width of a block's MLP (MONAI's own default, 512, is not ViT-Base's 3072).
        num_layers: number of transformer blocks.
        num_heads: attention heads per block.
        decoder_hidden_size: width of the decoder's tokens, a multiple of 6.
        decoder_mlp_dim: width of a decoder block's MLP.
        decoder_num_layers: number of decoder blocks.
        decoder_num_heads: attention heads per decoder block.

    Attributes:
        config: the constructor's arguments, as JSON can hold them.

    Raises:
        ValueError: if sizes do not fit each other.
    """

    def __init__(
        self,
        img_size: Sequence[int] = (128, 128, 48),
        *,
        masking_ratio: float = 0.75,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_layers: int = 12,
        num_heads: int = 12,
        decoder_hidden_size: int = 384,
        decoder_mlp_dim: int = 1536,
        decoder_num_layers: int = 4,
        decoder_num_heads: int = 12,
    ) -> None:
        config: dict[str, Any] = {
            "img_size": list(img_size), "masking_ratio": masking_ratio, "hidden_size": hidden_size,
            "mlp_dim": mlp_dim, "num_layers": num_layers, "num_heads": num_heads,
            "decoder_hidden_size": decoder_hidden_size, "decoder_mlp_dim": decoder_mlp_dim,
            "decoder_num_layers": decoder_num_layers, "decoder_num_heads": decoder_num_heads,
        }  # fmt: skip
        _check_sizes(config)
        with warnings.catch_warnings():
            # MONAI 1.6.1's position embedding calls torch.meshgrid without indexing.
            warnings.filterwarnings("ignore", message="torch.meshgrid")
            super().__init__(in_channels=1, patch_size=PATCH_SIZE, **config)
        self.config = config
        self.register_load_state_dict_pre_hook(refuse_misfit)
        self.register_load_state_dict_pre_hook(refuse_no_weights)
        embed = self.decoder_embed
        self.decoder_embed = _FullPrecisionLinear(embed.in_features, embed.out_features)
        for block in (*self.blocks, *self.decoder_blocks):
            # MONAI keeps the final norms, which have no attention, in the same lists.
            if hasattr(block, "attn"):
                block.norm_cross_attn = nn.Identity()
                block.attn.use_flash_attention = True

    def param_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Group what is trained by its weight decay, for an optimizer.

        As in He et al.'s code, vectors have none: biases, and weights of norms. The position
        embeddings are fixed, so they are in neither group.

        Args:
            weight_decay: that of matrices, kernels and tokens.

        Returns:
            Two groups with ``params`` and ``weight_decay``.
        """
        trained = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def forward(self, x: Tensor, masking_ratio: float | None = None) -> tuple[Tensor, Tensor]:
        """Hide patches of volumes and predict the voxels of all.

        Args:
            x: volumes, shape (B, 1, H, W, D).
            masking_ratio: in place of the one given at construction.

        Returns:
            Predicted patches (B, N, 4096), each on the scale of its own mean and contrast, and the
            mask (B, N), 1 where a patch was hidden.
        """
        return super().forward(x, masking_ratio)


class _FullPrecisionLinear(nn.Linear):
    """A linear layer whose output has its weights' type under autocast too.

    MONAI's forward writes it into the mask tokens in place, which takes no mix of types.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        # TorchScript does not take super().forward.
        return nn.functional.linear(input, self.weight, self.bias).to(self.weight.dtype)


def _check_sizes(config: dict[str, Any]) -> None:
    sizes = config["img_size"]
    if len(sizes) != 3 or any(s < PATCH_SIZE or s % PATCH_SIZE for s in sizes):
        raise ValueError(f"img_size: expected three multiples of {PATCH_SIZE} voxels, got {sizes}")
    for prefix in ("", "decoder_"):
        width, heads = config[f"{prefix}hidden_size"], config[f"{prefix}num_heads"]
        if width % SINCOS_MULTIPLE or width % heads:
            raise ValueError(
                f"{prefix}hidden_size: expected a multiple of {SINCOS_MULTIPLE} and of "
                f"{prefix}num_heads, got {width} with {heads} heads"
            )
    patches = sizes[0] * sizes[1] * sizes[2] // PATCH_SIZE**3
    ratio = config["masking_ratio"]
    if not 0 < ratio < 1 or int((1 - ratio) * patches) < 1:
        raise ValueError(
            f"masking_ratio: expected a number between 0 and 1 that leaves at least one of "
            f"{patches} patches visible, got {ratio}"
        )


class VolumeEncoder(VolumeAutoEncoder):
    """The auto-encoder's normalised encoder output as features of whole volumes.

    No patch is hidden and nothing is drawn at random: one tensor in, one tensor out, as MONAI's
    ``verify_net_in_out`` and exports need it. The parameters are the auto-encoder's under the
    same names, its decoder's included, so that ``model.pt`` fits as it is.

    Args:
        img_size: input size in voxels, three multiples of 16.
        **sizes: as for `VolumeAutoEncoder`.
    """

    def autoencoder(self) -> Reconstruction:
        """Return an auto-encoder that shares these parameters."""
        return Reconstruction(self)

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


class Reconstruction(nn.Module):
    """The auto-encoder on a `VolumeEncoder`'s parameters: hide patches, predict all.

    Args:
        encoder: the encoder whose parameters are shared, not copied.
    """

    def __init__(self, encoder: VolumeEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Hide patches and predict the voxels of all, as `VolumeAutoEncoder.forward` does.

        Args:
            x: volumes, shape (B, 1, H, W, D).

        Returns:
            Predicted patches (B, N, 4096) and the mask (B, N), 1 where a patch was hidden.
        """
        return VolumeAutoEncoder.forward(self.encoder, x)
