"""The same numbers, faster: what a device is known to run quicker than MONAI's plain blocks.

Nothing here changes a parameter, its name or, but for rounding, a result. The plain network in
`lora_ext.networks` is what is exported, and what runs wherever these were not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from monai.networks.blocks import SABlock, UnetrUpBlock
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import nn

from lora_ext.acceleration.attention import Attention
from lora_ext.acceleration.decoder import ChannelsLastDecoder, MergeBlock, ResidualBlock
from lora_ext.acceleration.device import (
    compilation,
    has_fast_bfloat16,
    keep_freed_memory,
    run_in_bfloat16,
)
from lora_ext.networks.decoder import UNETRDecoder
from lora_ext.networks.encoder import ChannelEncoder

CHOICES = ("auto", "on", "off")
MEASURED = ("cpu",)  # devices on which benchmarks/ has shown the faster blocks right and faster
# By the part of the network that they are in: MONAI uses the same blocks elsewhere with settings
# (affine norms, dropout) that the faster ones do not know.
FASTER: dict[type[nn.Module], dict[type[nn.Module], type[nn.Module]]] = {
    ChannelEncoder: {SABlock: Attention},
    UNETRDecoder: {
        UNETRDecoder: ChannelsLastDecoder,
        UnetrUpBlock: MergeBlock,
        UnetResBlock: ResidualBlock,
    },
}


def accelerate(
    network: nn.Module,
    device: str | torch.device,
    acceleration: str = "auto",
    *,
    amp: bool = False,
    compile: bool = False,  # noqa: A002 (it is the setting's name)
) -> nn.Module:
    """Make a network faster on its device, in place.

    Blocks are given the class of their faster form, which has the same parameters under the same
    names. On a CPU the process also keeps the memory that it frees (`keep_freed_memory`).

    Args:
        network: the network; parts that are none of this package's stay as they are.
        device: where it runs.
        acceleration: ``on``, ``off``, or ``auto``: on for devices on which it was measured.
        amp: mixed precision, bfloat16 on devices that are faster in it.
        compile: whether ``torch.compile`` will take the network; it fuses the plain blocks itself.

    Returns:
        The same network.

    Raises:
        ValueError: for another `acceleration`, or ``on`` together with `compile`.
    """
    if acceleration not in CHOICES:
        raise ValueError(
            f"acceleration: expected one of {', '.join(CHOICES)}, got {acceleration!r}"
        )
    if acceleration == "on" and compile:
        raise ValueError(
            "acceleration: expected auto or off together with --compile True, got on; "
            "torch.compile fuses the plain blocks itself"
        )
    kind = torch.device(device).type
    if acceleration == "on" or (acceleration == "auto" and kind in MEASURED and not compile):
        _swap_blocks(network)
        keep_freed_memory(device)
    if amp and has_fast_bfloat16(device):
        run_in_bfloat16(network, device)
    return network


class AcceleratedInferer(Inferer):
    """Another inferer, whose network is accelerated before it runs.

    MONAI Label builds the network of ``inference.json`` itself and takes the inferer from it, so
    this is where both of them meet.

    Args:
        inferer: the inferer that is called.
        acceleration: see `accelerate`; the device is that of the images.
        amp: see `accelerate`.
    """

    def __init__(self, inferer: Inferer, acceleration: str = "auto", amp: bool = False) -> None:
        super().__init__()
        self.inferer = inferer
        self.settings = (acceleration, amp)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the network on images."""
        acceleration, amp = self.settings
        if isinstance(network, nn.Module):
            accelerate(network, inputs.device, acceleration, amp=amp)
        return self.inferer(inputs, network, *args, **kwargs)


def _swap_blocks(network: nn.Module) -> None:
    for part in network.modules():
        faster = FASTER.get(type(part), {})
        for block in part.modules() if faster else ():
            block.__class__ = faster.get(type(block), type(block))


__all__ = [
    "AcceleratedInferer",
    "accelerate",
    "compilation",
    "has_fast_bfloat16",
    "keep_freed_memory",
]
