"""Reference networks: MONAI's own segmentation networks in the pipeline of the bundles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets import UNETR, DynUNet, SegResNet
from torch import Tensor, nn

REFERENCES = ("segresnet", "dynunet", "unetr")
SIZES = ("feature_size", "hidden_size", "mlp_dim", "num_heads")  # what stock UNETR takes
MAX_POOLINGS = 5  # nnU-Net's limit


class ReferenceNetwork(nn.Module):
    """One of MONAI's networks, with what the bundles' pipeline asks of a network.

    Everything is trained from random weights (regime ``baseline``). ``segresnet`` is SegResNet
    (Myronenko 2018) with 16 filters, ``dynunet`` nnU-Net's architecture (Isensee et al. 2021),
    and ``unetr`` stock UNETR: all channels go into one ViT of 12 blocks.

    The `spacing` in mm decides where DynUNet pools, and the bundle's `SIZES` are for ``unetr``
    alone. ``config`` has the arguments and ``regime``, as JSON can hold them.
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
        modalities: Sequence[str] | None = None,
        **sizes: Any,
    ) -> None:
        super().__init__()
        if name not in REFERENCES:
            raise ValueError(f"unknown network {name!r}; expected one of {', '.join(REFERENCES)}")
        names = modalities or [f"channel{c}" for c in range(in_channels)]
        self.config: dict[str, Any] = {
            "name": name, "in_channels": in_channels, "out_channels": out_channels,
            "img_size": list(img_size), "spacing": list(spacing), "modalities": list(names),
            "regime": self.regime,
        }  # fmt: skip
        if name == "unetr":
            # the bundle may have none, or a list for the stages of another backbone
            own = {key: size for key, size in sizes.items() if isinstance(size, int)}
            self.config |= {"feature_size": 64} | own
        self.network = _build(self.config)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ReferenceNetwork:
        """Build a network from another's `config`."""
        return cls(**{key: value for key, value in config.items() if key != "regime"})

    def forward(self, x: Tensor) -> Tensor:
        """Segment an image (B, C, H, W, D); return logits (B, R, H, W, D)."""
        return self.network(x)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return all parameters, for an optimizer."""
        return [p for p in self.parameters() if p.requires_grad]


def dynunet_plan(
    img_size: Sequence[int], spacing: Sequence[float]
) -> tuple[list[list[int]], list[list[int]]]:
    """Plan DynUNet's kernel sizes and strides per level for an input size, as nnU-Net does.

    An axis is halved while it has at least 8 voxels (and an even number) and its voxels are at
    most twice as long as the finest; coarser axes wait, with kernels of one voxel (Isensee et al.
    2021; MONAI's ``dynunet_pipeline``). Levels come from the finest on.
    """
    size, length = list(img_size), list(spacing)
    kernels, strides = [], [[1, 1, 1]]
    while True:
        fine = [edge <= 2 * min(length) for edge in length]
        kernels.append([3 if near else 1 for near in fine])
        halved = [near and n >= 8 and n % 2 == 0 for near, n in zip(fine, size, strict=True)]
        if not any(halved) or len(strides) > MAX_POOLINGS:
            kernels[-1] = [3, 3, 3]
            return kernels, strides
        step = [2 if half else 1 for half in halved]
        strides.append(step)
        size = [n // by for n, by in zip(size, step, strict=True)]
        length = [edge * by for edge, by in zip(length, step, strict=True)]


def _build(config: dict[str, Any]) -> nn.Module:
    channels = {key: config[key] for key in ("in_channels", "out_channels")}
    if config["name"] == "segresnet":
        return SegResNet(spatial_dims=3, init_filters=16, **channels)
    if config["name"] == "dynunet":
        kernels, strides = dynunet_plan(config["img_size"], config["spacing"])
        return DynUNet(
            spatial_dims=3, kernel_size=kernels, strides=strides,
            upsample_kernel_size=strides[1:], **channels,
        )  # fmt: skip
    sizes = {size: config[size] for size in SIZES if size in config}
    network = UNETR(img_size=config["img_size"], **channels, **sizes)
    for block in network.vit.blocks:
        block.norm_cross_attn = nn.Identity()  # made by MONAI 1.6.1, never used, but counted
    return network
