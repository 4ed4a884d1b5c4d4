"""The method, whatever the backbone: shared encoder, adapters, fusion, regimes, record.

image (B, C, H, W, D)
|-- SharedEncoder: each channel on its own, shared weights, own adapters
|       taps (B, C, N, width)
|-- ChannelFusion: concatenate the C latents on the feature axis, one Linear per tap
|       taps (B, N, width)
`-- decoder:       the backbone's convolutional blocks; its first skip sees the raw image
logits (B, regions, H, W, D), one sigmoid map per region
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Optional

import torch
from torch import Tensor, nn

from lora_ext.networks.channels import SharedEncoder
from lora_ext.networks.config import default_names, refuse_misfit
from lora_ext.networks.fusion import ChannelFusion
from lora_ext.networks.loading import refuse_no_weights
from lora_ext.networks.lora import add_channel_lora, check_scaling
from lora_ext.networks.regimes import apply_regime, get_regime


class ChannelNetwork(nn.Module):
    """A segmentation network on one shared single-channel encoder, of any backbone.

    A backbone is a subclass: it says its encoder and its decoder, and the sizes that both take. The
    arguments are described there.

    Attributes:
        backbone: its name, as settings and records have it.
        regime: what is trained.
        config: the backbone and the constructor's arguments that say what is computed, as JSON can
            hold them: what `lora_ext.build_network` takes.

    Raises:
        ValueError: for an unknown regime, target or scaling, sizes that do not fit, a number of
            names other than `in_channels`, or a `modality_dropout` outside [0, 1).
    """

    backbone: ClassVar[str]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: Sequence[int],
        *,
        sizes: Mapping[str, Any],
        regime: str,
        lora_rank: int,
        lora_alpha: float,
        lora_scaling: str,
        lora_targets: Sequence[str],
        modality_dropout: float,
        modalities: Sequence[str] | None,
        activation_checkpointing: bool,
        encoder: str | None,
    ) -> None:
        super().__init__()
        names = tuple(modalities or default_names(in_channels))
        _check_arguments(in_channels, out_channels, names, modality_dropout)
        check_scaling(lora_scaling)
        self.regime = regime
        self.modality_dropout = modality_dropout
        self.config: dict[str, Any] = {
            "backbone": self.backbone, "in_channels": in_channels, "out_channels": out_channels,
            "img_size": list(img_size), "regime": regime, "lora_rank": lora_rank,
            "lora_alpha": lora_alpha, "lora_scaling": lora_scaling,
            "lora_targets": list(lora_targets), "modality_dropout": modality_dropout, **sizes,
            "modalities": list(names),
        }  # fmt: skip
        if encoder is not None:
            self.config["encoder"] = encoder
        self.register_load_state_dict_pre_hook(refuse_misfit)
        self.register_load_state_dict_pre_hook(refuse_no_weights)
        self.encoder = self.build_encoder(activation_checkpointing)
        if get_regime(regime).adapters:
            self._add_adapters()
        self.fusion = ChannelFusion(in_channels, self.encoder.widths)
        self.decoder = self.build_decoder(activation_checkpointing)
        apply_regime(self, regime)

    def build_encoder(self, recompute: bool) -> SharedEncoder:
        """Build the encoder that `config` describes, at random and without adapters.

        Args:
            recompute: in training, keep no activations inside the blocks.
        """
        raise NotImplementedError

    def build_decoder(self, recompute: bool) -> nn.Module:
        """Build the decoder that `config` describes: of the image and the fused taps.

        Args:
            recompute: in training, keep the inputs of each block only.
        """
        raise NotImplementedError

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

    def _add_adapters(self) -> None:
        config, linears = self.config, self.encoder.linears
        targets = config["lora_targets"]
        if not targets or set(targets) - linears.keys():
            raise ValueError(f"lora_targets {targets} must name linear layers out of {[*linears]}")
        add_channel_lora(
            self.encoder, tuple(linears[target] for target in targets), config["in_channels"],
            config["lora_rank"], config["lora_alpha"], config["lora_scaling"],
        )  # fmt: skip

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
