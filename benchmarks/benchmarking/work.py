"""What is compared, at which size: an encoder pass, a training step, a whole case, a start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from monai.data.utils import dense_patch_slices
from monai.inferers import SlidingWindowInferer
from monai.transforms import CropForeground
from torch import Tensor, nn
from torch.nn import functional

from lora_ext import ChannelLoRAUNETR
from lora_ext.data import Foreground
from lora_ext.training import RegionDiceCELoss

BUNDLE = Path(__file__).parents[2] / "bundles" / "brats_lora32" / "configs" / "inference.json"
OVERLAP, WINDOWS_AT_ONCE = 0.25, 4  # MONAI's default overlap


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
        """Build our plain network, with adapters that do something (a fresh B is zero)."""
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
        """Return the same sizes, some of them changed."""
        return replace(self, **changes)

    def window(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw a batch of one crop: image (1, C, H, W, D) and regions (1, R, H, W, D)."""
        generator = torch.Generator().manual_seed(1)
        image = torch.randn((1, self.channels, *self.roi), generator=generator)
        regions = torch.rand((1, self.regions, *self.roi), generator=generator) > 0.8
        return image, regions.float()

    def whole_case(self) -> torch.Tensor:
        """Draw a skull-stripped case (1, C, H, W, D): noise in an ellipsoid, zero around it."""
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


def autocast(device: torch.device, on: bool) -> torch.autocast:
    """Return bfloat16 autocast, or none."""
    return torch.autocast(device.type, torch.bfloat16, enabled=on)


def encoder_pass(
    encoder: nn.Module, image: Tensor, *, backward: bool, mixed: bool = True
) -> Callable[[], Any]:
    """Make an encoder pass over all channels, with the gradients of what is trained or without."""
    parameters = [p for p in encoder.parameters() if p.requires_grad]

    def run() -> None:
        with autocast(image.device, mixed), torch.set_grad_enabled(backward):
            taps = encoder(image)
        if backward:
            for parameter in parameters:
                parameter.grad = None
            sum(tap.float().mean() for tap in taps).backward()

    return run


def below_first_adapter_frozen(encoder: nn.Module) -> nn.Module:
    """Let gradients of a frozen encoder end where the first adapted layer would be, its input."""
    first = encoder.blocks[0].attn.out_proj
    first.register_forward_pre_hook(lambda _, inputs: (inputs[0].detach().requires_grad_(),))
    return encoder


def forward_pass(network: nn.Module, image: Tensor, mixed: bool) -> Callable[[], Tensor]:
    """Make the forward pass of a training step."""

    def run() -> Tensor:
        with autocast(image.device, mixed):
            return network(image)

    return run


def training_step(
    network: nn.Module, batch: tuple[Tensor, Tensor], *, mixed: bool, fused: bool
) -> Callable[[], float]:
    """Make a training step as a bundle does it: forward, loss, backward, Adam."""
    image, regions = batch
    forward, loss_function = forward_pass(network, image, mixed), RegionDiceCELoss()
    optimizer = torch.optim.Adam(network.trainable_parameters(), lr=1e-4, fused=fused)

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_function(forward().float(), regions)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def windows(sizes: Sizes, network: nn.Module, mixed: bool) -> Callable[[Tensor], Tensor]:
    """Make sliding windows over an image (1, C, H, W, D)."""
    inferer = SlidingWindowInferer(
        sizes.roi, sw_batch_size=WINDOWS_AT_ONCE, overlap=OVERLAP, mode="gaussian"
    )

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(image.device, mixed):
            return inferer(image, network).float()

    return run


def whole_case(sizes: Sizes, network: nn.Module, case: Tensor, *, lean: bool) -> Callable[[], Any]:
    """Make the inference of a case: the bundle's way (`lean`), or every window in float32."""
    if not lean:
        return lambda: windows(sizes, network, mixed=False)(case)
    crop = CropForeground(select_fn=Foreground([*map(str, range(sizes.channels))], "mr"))
    return lambda: windows(sizes, network, mixed=True)(crop(case[0]).as_tensor()[None])


def count_windows(sizes: Sizes, voxels: tuple[int, ...]) -> int:
    """Count the windows that MONAI lays over that many voxels."""
    interval = [int(size * (1 - OVERLAP)) for size in sizes.roi]
    return len(dense_patch_slices(voxels, sizes.roi, interval))


OUR_START = (
    "from monai.bundle import ConfigParser; p = ConfigParser(); p.read_config('{}');"
    "p['device'] = '{}'; p['acceleration'] = '{}'; p.get_parsed_content('network')"
)
PEER_START = (
    "import sys; sys.path.insert(0, '{}'); from benchmarking.peer import Peer;"
    "from benchmarking.work import PAPER; Peer(PAPER, PAPER.rank).to('{}')"
)


def start(side: str, device: torch.device) -> Callable[[], Any]:
    """Make the start of a new process, up to the network on the device: `BUNDLE` or by hand."""
    if side == "peer":
        code = PEER_START.format(Path(__file__).parents[1], device)
    else:
        code = OUR_START.format(BUNDLE, device, "on" if side == "accelerated" else "off")
    return lambda: subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
