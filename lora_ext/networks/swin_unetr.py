"""Swin UNETR for multi-channel images on a shared single-channel Swin encoder.

The same method as on UNETR's ViT (`channel_network`), on MONAI's SwinUNETR (Hatamizadeh et al.
2022, arXiv:2201.01266), for which single-channel weights are public. Its own are the five scales::

    image (B, C, H, W, D) -> fold -> (C * B, 1, H, W, D) -> Swin transformer
      -> 5 taps (B, C, N, width) at 1/2, 1/4, ..., 1/32 of the size, width feature_size * 2^scale
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrUpBlock
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import Tensor, nn

from lora_ext.networks.channel_network import ChannelNetwork
from lora_ext.networks.channels import SharedEncoder, check_channel_names
from lora_ext.networks.checkpointing import recompute as keep_inputs_only

SCALES = 5  # the patches and the outputs of the four stages
STRIDE = 2**SCALES  # voxels of the image along one axis of the coarsest scale


class SwinEncoder(SharedEncoder, SwinTransformer):
    """MONAI's SwinTransformer on one-channel volumes, shared by all channels of the image.

    Its keys are MONAI's (``patch_embed.*``, ``layers1.*`` to ``layers4.*``), its settings those of
    MONAI's SwinUNETR: patches of 2^3 voxels, windows of 7^3 tokens, outputs normalised.

    Args:
        channel_names: one name per image channel.
        img_size: size of the input volume in voxels.
        feature_size: width of a token at the finest scale.
        depths: transformer blocks of each stage.
        num_heads: attention heads of each stage.
        use_v2: a residual convolution before each stage, as in SwinUNETR-V2 (He et al. 2023).
        recompute: in training, keep no activations inside the blocks.

    Raises:
        ValueError: if the names repeat or the sizes do not fit.
    """

    linears = {**SharedEncoder.linears, "out_proj": "proj"}  # noqa: RUF012

    def __init__(
        self,
        channel_names: Sequence[str],
        img_size: Sequence[int],
        *,
        feature_size: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        use_v2: bool = False,
        recompute: bool = False,
    ) -> None:
        check_channel_names(channel_names)
        _check_sizes(img_size, feature_size, depths, num_heads)
        with torch.device("cpu"):  # MONAI reads numbers of a tensor, which has none on "meta"
            super().__init__(
                in_chans=1, embed_dim=feature_size, window_size=(7, 7, 7), patch_size=(2, 2, 2),
                depths=depths, num_heads=num_heads, use_v2=use_v2, use_checkpoint=recompute,
            )  # fmt: skip
        self.to(torch.get_default_device())
        self.share(channel_names, img_size, [feature_size * 2**scale for scale in range(SCALES)])

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Encode every channel of an image with the shared weights and its own adapters.

        Args:
            x: image, shape (B, C, H, W, D), with the active channels in their order.

        Returns:
            The five taps, from the finest, each (B, C, N, width of that scale).

        Raises:
            ValueError: if `x` has another number of channels or another size.
        """
        volumes = super().forward(self.fold(x))
        return [self.unfold(v.flatten(2).transpose(1, 2), x.shape[0]) for v in volumes]


class SwinUNETRDecoder(nn.Module):
    """MONAI SwinUNETR's convolutional decoder: its blocks, names and wiring.

    Args:
        in_channels: channels C of the raw image, for the first skip.
        out_channels: number of regions.
        img_size: size of the image in voxels.
        feature_size: channels of the finest scale.
        recompute: in training, keep the inputs of each block only.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: Sequence[int],
        feature_size: int,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.grids = [[size // 2**scale for size in img_size] for scale in range(1, SCALES + 1)]
        self.encoder1 = _block(in_channels, feature_size)
        self.encoder2 = _block(feature_size, feature_size)
        self.encoder3 = _block(2 * feature_size, 2 * feature_size)
        self.encoder4 = _block(4 * feature_size, 4 * feature_size)
        self.encoder10 = _block(16 * feature_size, 16 * feature_size)
        self.decoder5 = _merge(16 * feature_size, 8 * feature_size)
        self.decoder4 = _merge(8 * feature_size, 4 * feature_size)
        self.decoder3 = _merge(4 * feature_size, 2 * feature_size)
        self.decoder2 = _merge(2 * feature_size, feature_size)
        self.decoder1 = _merge(feature_size, feature_size)
        self.out = UnetOutBlock(3, feature_size, out_channels)
        if recompute:
            for block in self.children():
                keep_inputs_only(block)

    def forward(self, image: Tensor, taps: list[Tensor]) -> Tensor:
        """Decode five fused taps (B, N, width) and the image (B, C, H, W, D) to logits."""
        skips = [
            tap.transpose(1, 2).unflatten(2, grid)
            for tap, grid in zip(taps, self.grids, strict=True)
        ]
        x = self.decoder5(self.encoder10(skips[4]), skips[3])
        x = self.decoder4(x, self.encoder4(skips[2]))
        x = self.decoder3(x, self.encoder3(skips[1]))
        x = self.decoder2(x, self.encoder2(skips[0]))
        return self.out(self.decoder1(x, self.encoder1(image)))


class ChannelLoRASwinUNETR(ChannelNetwork):
    """Swin UNETR with one shared single-channel encoder, channel-wise LoRA and channel fusion.

    Everything but the sizes is as in `ChannelLoRAUNETR`. `lora_ext.load_encoder` brings in MONAI's
    SSL weights and others of that form.

    Args:
        in_channels: number of image channels C.
        out_channels: number of regions, one sigmoid map each.
        img_size: input size in voxels, three multiples of 32, not all of them 32.
        regime: ``baseline``, ``finetune``, ``frozen`` or ``lora``.
        lora_rank: see `ChannelLoRAUNETR`, as for the next three.
        lora_alpha: numerator of the adapters' scale.
        lora_scaling: ``rank_stabilised`` or ``classical``.
        lora_targets: linear layers of every block that get adapters, out of ``qkv``, ``out_proj``
            (MONAI's ``attn.proj``), ``linear1``, ``linear2``.
        modality_dropout: probability of hiding each channel of each image during training.
        feature_size: features of the finest scale, a multiple of 12.
        depths: transformer blocks of each of the four stages.
        num_heads: attention heads of each of the four stages.
        use_v2: a residual convolution before each stage (SwinUNETR-V2), which VoCo's weights have.
        modalities: names of the image channels; by default ``channel0``, ``channel1``, ...
        activation_checkpointing: less memory in training, more time.
        encoder: what the encoder's weights come from, for the record; changes nothing.

    Raises:
        ValueError: see `ChannelNetwork`.
    """

    backbone = "swin_unetr"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: Sequence[int] = (128, 128, 64),
        *,
        regime: str = "lora",
        lora_rank: int = 32,
        lora_alpha: float = 8.0,
        lora_scaling: str = "rank_stabilised",
        lora_targets: Sequence[str] = ("out_proj", "linear1"),
        modality_dropout: float = 0.0,
        feature_size: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        use_v2: bool = False,
        modalities: Sequence[str] | None = None,
        activation_checkpointing: bool = False,
        encoder: str | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, img_size, regime=regime, lora_rank=lora_rank,
            lora_alpha=lora_alpha, lora_scaling=lora_scaling, lora_targets=lora_targets,
            modality_dropout=modality_dropout, modalities=modalities,
            activation_checkpointing=activation_checkpointing, encoder=encoder,
            sizes={
                "feature_size": feature_size, "depths": list(depths), "num_heads": list(num_heads),
                "use_v2": use_v2,
            },
        )  # fmt: skip

    def build_encoder(self, recompute: bool) -> SwinEncoder:
        """See `ChannelNetwork.build_encoder`."""
        config = self.config
        return SwinEncoder(
            config["modalities"], config["img_size"], feature_size=config["feature_size"],
            depths=config["depths"], num_heads=config["num_heads"], use_v2=config["use_v2"],
            recompute=recompute,
        )  # fmt: skip

    def build_decoder(self, recompute: bool) -> SwinUNETRDecoder:
        """See `ChannelNetwork.build_decoder`."""
        config = self.config
        return SwinUNETRDecoder(
            config["in_channels"], config["out_channels"], config["img_size"],
            config["feature_size"], recompute=recompute,
        )  # fmt: skip


def _check_sizes(
    img_size: Sequence[int], feature_size: int, depths: Sequence[int], num_heads: Sequence[int]
) -> None:
    sizes = list(img_size)
    # One token at the coarsest scale has no variance for the decoder's instance norm.
    if len(sizes) != 3 or any(s < 1 or s % STRIDE for s in sizes) or math.prod(sizes) == STRIDE**3:
        raise ValueError(
            f"img_size must be three multiples of {STRIDE} voxels, not all of them {STRIDE}; "
            f"got {sizes}"
        )
    stages = SCALES - 1
    if len(depths) != stages or len(num_heads) != stages or min(*depths, *num_heads) < 1:
        raise ValueError(
            f"depths and num_heads must be {stages} numbers each, from 1 on; got "
            f"depths={list(depths)}, num_heads={list(num_heads)}"
        )
    widths = [feature_size * 2**stage for stage in range(stages)]
    wrong = [n for width, n in zip(widths, num_heads, strict=True) if width % n]
    if feature_size < 1 or feature_size % 12 or wrong:
        raise ValueError(
            "feature_size must be a multiple of 12, and the widths of the stages, feature_size "
            f"times 1, 2, 4 and 8, multiples of num_heads; got feature_size={feature_size}, "
            f"num_heads={list(num_heads)}"
        )


def _block(in_channels: int, out_channels: int) -> UnetrBasicBlock:
    return UnetrBasicBlock(
        3, in_channels, out_channels, kernel_size=3, stride=1, norm_name="instance", res_block=True
    )


def _merge(in_channels: int, out_channels: int) -> UnetrUpBlock:
    return UnetrUpBlock(
        3, in_channels, out_channels, kernel_size=3, upsample_kernel_size=2,
        norm_name="instance", res_block=True,
    )  # fmt: skip
