"""How large the networks and the case of a benchmark are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from lora_ext import ChannelLoRAUNETR


@dataclass(frozen=True)
class Sizes:
    """Arguments of `lora_ext.ChannelLoRAUNETR`, and the whole case of the inference row.

    Attributes:
        case: voxels of the whole case.
        head: voxels of the box around what is not background in it.
    """

    channels: int = 4
    regions: int = 3
    roi: tuple[int, int, int] = (128, 128, 48)
    rank: int = 32
    feature_size: int = 64
    hidden_size: int = 768
    mlp_dim: int = 3072
    num_layers: int = 12
    num_heads: int = 12
    case: tuple[int, int, int] = (240, 240, 155)
    # the mean box around the brains of four BraTS 2013 patients is 140 x 156 x 138
    head: tuple[int, int, int] = (140, 156, 138)

    @property
    def token_sizes(self) -> dict[str, int]:
        """What our network, MONAI's ViT and MONAI's UNETR call by the same names."""
        return {
            "hidden_size": self.hidden_size,
            "mlp_dim": self.mlp_dim,
            "num_heads": self.num_heads,
        }

    def network(self, regime: str = "lora", **options: bool) -> ChannelLoRAUNETR:
        """Our network, with adapters that do something (a fresh B is zero)."""
        torch.manual_seed(0)
        network = ChannelLoRAUNETR(
            self.channels,
            self.regions,
            self.roi,
            regime=regime,
            lora_rank=self.rank,
            feature_size=self.feature_size,
            num_layers=self.num_layers,
            **self.token_sizes,
            **options,
        )
        for name, parameter in network.named_parameters():
            if name.endswith("lora_B"):
                torch.nn.init.normal_(parameter, std=0.02)
        return network

    def with_(self, **changes: object) -> Sizes:
        """The same sizes, some of them changed."""
        return replace(self, **changes)

    def window(self) -> tuple[torch.Tensor, torch.Tensor]:
        """One training batch of one crop: image (1, C, H, W, D) and regions (1, R, H, W, D)."""
        generator = torch.Generator().manual_seed(1)
        image = torch.randn((1, self.channels, *self.roi), generator=generator)
        regions = torch.rand((1, self.regions, *self.roi), generator=generator) > 0.8
        return image, regions.float()

    def whole_case(self) -> torch.Tensor:
        """A skull-stripped case (1, C, H, W, D): noise in an ellipsoid, zero around it."""
        generator = torch.Generator().manual_seed(2)
        axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in self.head), indexing="ij")
        inside = sum(axis**2 for axis in axes) <= 1.1  # so that it touches every side
        head = torch.randn((1, self.channels, *self.head), generator=generator) * inside
        margins = [(whole - part) for whole, part in zip(self.case, self.head, strict=True)]
        padding = [side for m in reversed(margins) for side in (m // 2, m - m // 2)]
        return functional.pad(head, padding)


PAPER = Sizes()
# for the tests and for a look: seconds, and no statement about speed
SMALL = Sizes(
    roi=(32, 32, 16), rank=4, feature_size=8, hidden_size=48, mlp_dim=96, num_layers=4,
    num_heads=4, case=(60, 60, 39), head=(35, 40, 30),
)  # fmt: skip
SIZES = {"paper": PAPER, "small": SMALL}
