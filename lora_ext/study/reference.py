"""Reference networks: MONAI's own segmentation networks in the pipeline of the bundles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai.networks.nets import UNETR, DynUNet, SegResNet
from torch import Tensor, nn

MAX_POOLINGS = 5  # nnU-Net's limit
SIZES = ("feature_size", "hidden_size", "mlp_dim", "num_heads")  # what stock UNETR takes


def _segresnet(config: dict[str, Any]) -> nn.Module:
    """MONAI's SegResNet (Myronenko 2018), 16 filters."""
    return SegResNet(
        spatial_dims=3,
        init_filters=16,
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
    )


def _dynunet(config: dict[str, Any]) -> nn.Module:
    """MONAI's DynUNet, nnU-Net's architecture (Isensee et al. 2021), planned for the roi."""
    kernels, strides = dynunet_plan(config["img_size"], config["spacing"])
    return DynUNet(
        spatial_dims=3,
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        kernel_size=kernels,
        strides=strides,
        upsample_kernel_size=strides[1:],
    )


def _unetr(config: dict[str, Any]) -> nn.Module:
    """MONAI's UNETR, all channels into one ViT of 12 blocks, with the bundle's other sizes."""
    network = UNETR(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        img_size=config["img_size"],
        **{size: config[size] for size in SIZES},
    )
    for block in network.vit.blocks:
        block.norm_cross_attn = nn.Identity()  # made by MONAI 1.6.1, never used, but counted
    return network


REFERENCES: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "segresnet": _segresnet,
    "dynunet": _dynunet,
    "unetr": _unetr,
}


def dynunet_plan(
    img_size: Sequence[int], spacing: Sequence[float]
) -> tuple[list[list[int]], list[list[int]]]:
    """Plan DynUNet's kernels and strides for an input size, as nnU-Net does.

    An axis is halved while it has at least 8 voxels (and an even number) and its voxels are at
    most twice as long as the finest; coarser axes wait, with kernels of one voxel (Isensee et al.
    2021; MONAI's ``dynunet_pipeline``).

    Args:
        img_size: input size in voxels.
        spacing: voxel size in mm.

    Returns:
        Kernel sizes and strides per level, from the finest on.
    """
    size, length = list(img_size), list(spacing)
    kernels, strides = [], [[1, 1, 1]]
    while True:
        fine = [edge <= 2 * min(length) for edge in length]
        kernels.append([3 if near else 1 for near in fine])
        step = [
            2 if near and n >= 8 and n % 2 == 0 else 1 for near, n in zip(fine, size, strict=True)
        ]
        if step == [1, 1, 1] or len(strides) > MAX_POOLINGS:
            kernels[-1] = [3, 3, 3]
            return kernels, strides
        strides.append(step)
        size = [n // by for n, by in zip(size, step, strict=True)]
        length = [edge * by for edge, by in zip(length, step, strict=True)]


class ReferenceNetwork(nn.Module):
    """One of MONAI's networks, with what the bundles' pipeline asks of a network.

    Everything is trained from random weights (regime ``baseline``).

    Args:
        name: ``segresnet``, ``dynunet`` or ``unetr``.
        in_channels: number of image channels C.
        out_channels: number of regions R, one sigmoid map each.
        img_size: input size in voxels.
        spacing: voxel size in mm; it decides where DynUNet pools.
        feature_size: channels of stock UNETR's finest level; only ``unetr`` takes this and the
            next three.
        hidden_size: width of a token.
        mlp_dim: width of a block's MLP.
        num_heads: attention heads per block. The number of blocks is 12, fixed by MONAI.
        modalities: names of the image channels, kept with the weights.

    Attributes:
        config: the constructor's arguments and ``regime``, as JSON can hold them.

    Raises:
        ValueError: for an unknown name.
    """

    regime = "baseline"

    def __init__(
        self,
        name: str,
        in_channels: int,
        out_channels: int,
        img_size: Sequence[int],
        *,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        feature_size: int = 64,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_heads: int = 12,
        modalities: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if name not in REFERENCES:
            raise ValueError(f"unknown reference network {name!r}; known are {list(REFERENCES)}")
        names = modalities or [f"channel{c}" for c in range(in_channels)]
        self.config: dict[str, Any] = {
            "name": name, "in_channels": in_channels, "out_channels": out_channels,
            "img_size": list(img_size), "spacing": list(spacing), "modalities": list(names),
            "regime": self.regime,
        }  # fmt: skip
        if name == "unetr":
            self.config |= {
                "feature_size": feature_size, "hidden_size": hidden_size,
                "mlp_dim": mlp_dim, "num_heads": num_heads,
            }  # fmt: skip
        self.network = REFERENCES[name](self.config)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ReferenceNetwork:
        """Build a network from another's `config`."""
        return cls(**{key: value for key, value in config.items() if key != "regime"})

    def forward(self, x: Tensor) -> Tensor:
        """Segment an image.

        Args:
            x: image, shape (B, C, H, W, D).

        Returns:
            Logits of shape (B, R, H, W, D).
        """
        return self.network(x)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """All parameters, for an optimizer."""
        return [p for p in self.parameters() if p.requires_grad]
