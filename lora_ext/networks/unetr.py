"""UNETR for multi-channel images on a shared single-channel ViT (paper section 2, figure 1)."""

from __future__ import annotations

from collections.abc import Sequence

from lora_ext.networks.channel_network import ChannelNetwork
from lora_ext.networks.decoder import UNETRDecoder
from lora_ext.networks.encoder import ChannelEncoder


class ChannelLoRAUNETR(ChannelNetwork):
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

    Raises:
        ValueError: for an unknown regime, target or scaling, sizes that do not fit, a number of
            names other than `in_channels`, or a `modality_dropout` outside [0, 1).
    """

    backbone = "unetr"

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
        super().__init__(
            in_channels, out_channels, img_size, regime=regime, lora_rank=lora_rank,
            lora_alpha=lora_alpha, lora_scaling=lora_scaling, lora_targets=lora_targets,
            modality_dropout=modality_dropout, modalities=modalities,
            activation_checkpointing=activation_checkpointing, encoder=encoder,
            sizes={
                "feature_size": feature_size, "hidden_size": hidden_size, "mlp_dim": mlp_dim,
                "num_layers": num_layers, "num_heads": num_heads, "qkv_bias": qkv_bias,
                "num_prefix_tokens": num_prefix_tokens, "norm_eps": norm_eps,
            },
        )  # fmt: skip

    def build_encoder(self, recompute: bool) -> ChannelEncoder:
        """See `ChannelNetwork.build_encoder`."""
        config = self.config
        return ChannelEncoder(
            config["modalities"], config["img_size"], hidden_size=config["hidden_size"],
            mlp_dim=config["mlp_dim"], num_layers=config["num_layers"],
            num_heads=config["num_heads"], qkv_bias=config["qkv_bias"],
            num_prefix_tokens=config["num_prefix_tokens"], norm_eps=config["norm_eps"],
            recompute=recompute,
        )  # fmt: skip

    def build_decoder(self, recompute: bool) -> UNETRDecoder:
        """See `ChannelNetwork.build_decoder`."""
        config = self.config
        return UNETRDecoder(
            config["in_channels"], config["out_channels"], config["img_size"],
            config["feature_size"], config["hidden_size"], recompute=recompute,
        )  # fmt: skip
