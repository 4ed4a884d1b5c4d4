"""The pieces of work that are compared: an encoder pass, a training step, a whole case, a start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.data.utils import dense_patch_slices
from monai.inferers import SlidingWindowInferer
from monai.transforms import CropForeground
from torch import Tensor, nn

from benchmarking.sizes import Sizes
from lora_ext.data import is_foreground
from lora_ext.training import RegionDiceCELoss

BUNDLE = Path(__file__).parents[2] / "bundles" / "brats_lora32" / "configs" / "inference.json"
OVERLAP, WINDOWS_AT_ONCE = 0.25, 4  # MONAI's default overlap


def autocast(device: torch.device, on: bool) -> torch.autocast:
    """bfloat16 autocast, or none."""
    return torch.autocast(device.type, torch.bfloat16, enabled=on)


def encoder_pass(
    encoder: nn.Module, image: Tensor, *, backward: bool, mixed: bool = True
) -> Callable[[], Any]:
    """An encoder pass over all channels, with the gradients of what is trained or without."""
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
    """The forward pass of a training step."""

    def run() -> Tensor:
        with autocast(image.device, mixed):
            return network(image)

    return run


def training_step(
    network: nn.Module, batch: tuple[Tensor, Tensor], *, mixed: bool, fused: bool
) -> Callable[[], float]:
    """A training step as a bundle does it: forward, loss, backward, Adam."""
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
    """Sliding windows over an image (1, C, H, W, D)."""
    inferer = SlidingWindowInferer(
        sizes.roi, sw_batch_size=WINDOWS_AT_ONCE, overlap=OVERLAP, mode="gaussian"
    )

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(image.device, mixed):
            return inferer(image, network).float()

    return run


def whole_case(sizes: Sizes, network: nn.Module, case: Tensor, *, lean: bool) -> Callable[[], Any]:
    """Inference of a whole case: the bundle's way (`lean`), or every window of it in float32."""
    if not lean:
        return lambda: windows(sizes, network, mixed=False)(case)
    crop = CropForeground(select_fn=is_foreground)
    return lambda: windows(sizes, network, mixed=True)(crop(case[0]).as_tensor()[None])


def count_windows(sizes: Sizes, voxels: tuple[int, ...]) -> int:
    """How many windows MONAI lays over that many voxels."""
    interval = [int(size * (1 - OVERLAP)) for size in sizes.roi]
    return len(dense_patch_slices(voxels, sizes.roi, interval))


OUR_START = (
    "from monai.bundle import ConfigParser; p = ConfigParser(); p.read_config('{}');"
    "p['device'] = '{}'; p.get_parsed_content('network')"
)
PEER_START = (
    "import sys; sys.path.insert(0, '{}'); from benchmarking.peer import Peer;"
    "from benchmarking.sizes import PAPER; Peer(PAPER, PAPER.rank).to('{}')"
)


def start(ours: bool, device: torch.device) -> Callable[[], Any]:
    """A new process, from nothing to the network on the device, as `BUNDLE` or by hand."""
    folder = Path(__file__).parents[1]
    code = OUR_START.format(BUNDLE, device) if ours else PEER_START.format(folder, device)
    return lambda: subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
