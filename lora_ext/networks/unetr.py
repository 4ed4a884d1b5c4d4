"""UNETR for multi-channel images on a shared single-channel ViT (paper section 2, figure 1).

image (B, C, H, W, D)
|-- ChannelEncoder: each channel on its own, shared weights, own adapters
|       4 taps (B, C, N, hidden)
|-- ChannelFusion:  concatenate the C latents on the feature axis, one Linear per tap
|       4 taps (B, N, hidden)
`-- UNETRDecoder:   MONAI UNETR's convolutional blocks; its first skip sees the raw image
logits (B, regions, H, W, D), one sigmoid map per region
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor, nn

from lora_ext.networks.config import default_names, refuse_misfit
from lora_ext.networks.decoder import UNETRDecoder
from lora_ext.networks.encoder import ChannelEncoder
from lora_ext.networks.fusion import ChannelFusion
from lora_ext.networks.loading import refuse_no_weights
from lora_ext.networks.lora import add_channel_lora, check_scaling
from lora_ext.networks.regimes import apply_regime, get_regime


class ChannelLoRAUNETR(nn.Module):
    """UNETR with one shared single-channel ViT, channel-wise LoRA adapters and channel fusion.

    One class for the paper's regimes (section 2.3): `regime` decides what is trained and whether
    there are adapters. Weights start at random; `lora_ext.load_encoder` brings in a pre-trained
    ViT.

    Args:
        in_channels: number of image channels C.
        out_channels: number of regions, one sigmoid map each.
        img_size: input size in voxels, three multiples of 16.
        regime: ``baseline``, ``finetune``, ``frozen`` or ``lora``.
        lora_rank: rank r of every adapter; used by ``lora`` alone, as are the next three.
        lora_alpha: adapters are scaled by ``lora_alpha / sqrt(lora_rank)``; a constant, so that
            the scale does not grow with the rank.
        lora_scaling: ``rank_stabilised``, the scale above (Kalajdzievski 2023), or ``classical``,
            ``lora_alpha / lora_rank`` (Hu et al. 2021).
        lora_targets: linear layers of every transformer block that get adapters, out of ``qkv``,
            ``out_proj``, ``linear1``, ``linear2``. The default gives the paper's Table 2.
        modality_dropout: probability of hiding each channel of each image during training; at
            least one channel always stays.
        feature_size: channels of the finest decoder level.
        hidden_size: width of a token.
        mlp_dim: width of a block's MLP.
        num_layers: number of transformer blocks.
        num_heads: attention heads per block.
        qkv_bias: whether queries, keys and values have a bias.
        num_prefix_tokens: number of learnt tokens before the patches' (class token, registers).
        norm_eps: what the encoder's layer norms add to the variance.
        modalities: names of the image channels, for `ChannelEncoder.channels`; by default
            ``channel0``, ``channel1``, ...
        activation_checkpointing: in training, keep only the inputs of the transformer and residual
            blocks and compute what is inside again for the gradients: less memory, more time.
        encoder: what the encoder's weights come from, for the record; changes nothing.

    Attributes:
        config: the constructor's arguments that say what is computed, as JSON can hold them.

    Raises:
        ValueError: for an unknown regime, target or scaling, sizes that do not fit, a number of
            names other than `in_channels`, or a `modality_dropout` outside [0, 1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: Sequence[int] = (128, 128, 48),
        *,
        regime: str = "lora",
        lora_rank: int = 32,
        lora_alpha: float = 8.0,
        lora_scaling: str = "rank_stabilised",
        lora_targets: Sequence[str] = ("out_proj", "linear1"),
        modality_dropout: float = 0.0,
        feature_size: int = 64,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_layers: int = 12,
        num_heads: int = 12,
        qkv_bias: bool = False,
        num_prefix_tokens: int = 0,
        norm_eps: float = 1e-5,
        modalities: Sequence[str] | None = None,
        activation_checkpointing: bool = False,
        encoder: str | None = None,
    ) -> None:
        super().__init__()
        names = tuple(modalities or default_names(in_channels))
        _check_arguments(in_channels, out_channels, names, modality_dropout)
        check_scaling(lora_scaling)
        self.regime = regime
        self.config = {
            "in_channels": in_channels, "out_channels": out_channels, "img_size": list(img_size),
            "regime": regime, "lora_rank": lora_rank, "lora_alpha": lora_alpha,
            "lora_scaling": lora_scaling, "lora_targets": list(lora_targets),
            "modality_dropout": modality_dropout, "feature_size": feature_size,
            "hidden_size": hidden_size, "mlp_dim": mlp_dim, "num_layers": num_layers,
            "num_heads": num_heads, "qkv_bias": qkv_bias, "num_prefix_tokens": num_prefix_tokens,
            "norm_eps": norm_eps, "modalities": list(names),
        }  # fmt: skip
        if encoder is not None:
            self.config["encoder"] = encoder
        self.register_load_state_dict_pre_hook(refuse_misfit)
        self.register_load_state_dict_pre_hook(refuse_no_weights)
        self.modality_dropout = modality_dropout
        self.encoder = ChannelEncoder(
            names, img_size, hidden_size=hidden_size, mlp_dim=mlp_dim, num_layers=num_layers,
            num_heads=num_heads, qkv_bias=qkv_bias, num_prefix_tokens=num_prefix_tokens,
            norm_eps=norm_eps, recompute=activation_checkpointing,
        )  # fmt: skip
        if get_regime(regime).adapters:
            add_channel_lora(
                self.encoder.blocks, tuple(lora_targets), in_channels, lora_rank, lora_alpha,
                lora_scaling,
            )  # fmt: skip
        self.fusion = ChannelFusion(in_channels, hidden_size)
        self.decoder = UNETRDecoder(
            in_channels, out_channels, img_size, feature_size, hidden_size,
            recompute=activation_checkpointing,
        )  # fmt: skip
        apply_regime(self, regime)

    def forward(self, x: Tensor, present: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
        """Segment a multi-channel image.

        Args:
            x: image, shape (B, C, H, W, D), of the size given at construction.
            present: optional mask of shape (B, C), true where an image has that channel. A channel
                that is absent is hidden from the fusion and from the raw skip, and the latents of
                the others are scaled by C / (number present), so that their sum keeps its size.

        Returns:
            Logits of shape (B, out_channels, H, W, D).
        """
        if present is None and self.training and self.modality_dropout > 0:
            present = self._draw_present(x)
        taps = self.encoder(x)
        if present is not None:
            keep = present.to(x.dtype)
            weight = keep * (keep.shape[1] / keep.sum(dim=1, keepdim=True))
            taps = [tap * weight[:, :, None, None].to(tap.dtype) for tap in taps]
            x = x * keep[:, :, None, None, None]
        return self.decoder(x, self.fusion(taps))

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that this network's regime trains, for an optimizer."""
        return [p for p in self.parameters() if p.requires_grad]

    def _draw_present(self, x: Tensor) -> Tensor:
        """Draw which channels (B, C) stay; a draw that hides every channel keeps a random one."""
        shape = [x.shape[0], x.shape[1]]
        present = torch.rand(shape, device=x.device) >= self.modality_dropout
        fallback = torch.rand(shape, device=x.device).argmax(dim=1)
        fallback = nn.functional.one_hot(fallback, x.shape[1]).to(torch.bool)
        return torch.where(present.any(dim=1, keepdim=True), present, fallback)


def _check_arguments(
    in_channels: int, out_channels: int, names: tuple[str, ...], modality_dropout: float
) -> None:
    if len(names) != in_channels or out_channels < 1:
        raise ValueError(
            f"in_channels={in_channels} needs as many modalities, and out_channels at least 1; "
            f"got modalities={list(names)}, out_channels={out_channels}"
        )
    if not 0.0 <= modality_dropout < 1.0:
        raise ValueError(f"modality_dropout must be in [0, 1); got {modality_dropout}")
