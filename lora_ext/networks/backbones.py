"""The backbones by name, and the one place where a network is built from settings or a record."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from lora_ext.networks.channel_network import ChannelNetwork
from lora_ext.networks.config import PLAIN
from lora_ext.networks.swin_unetr import ChannelLoRASwinUNETR
from lora_ext.networks.unetr import ChannelLoRAUNETR

BACKBONES: dict[str, type[ChannelNetwork]] = {
    network.backbone: network for network in (ChannelLoRAUNETR, ChannelLoRASwinUNETR)
}


def build_network(backbone: str = PLAIN, **arguments: Any) -> ChannelNetwork:
    """Build a network of a backbone.

    Args:
        backbone: ``unetr`` or ``swin_unetr``.
        **arguments: the arguments of `ChannelLoRAUNETR` or `ChannelLoRASwinUNETR`. Those that the
            other backbone alone takes are left out, and None stands for the backbone's own default,
            so that one set of settings serves both.

    Raises:
        ValueError: for an unknown backbone, and as the network's class says.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone: found {backbone!r}; allowed are {', '.join(BACKBONES)}")
    own = _arguments(backbone)
    others = {name for other in BACKBONES for name in _arguments(other)} - own
    given = {k: v for k, v in arguments.items() if k not in others and v is not None}
    return BACKBONES[backbone](**given)


def network_from_record(record: Mapping[str, Any]) -> ChannelNetwork:
    """Build the network that a model's record describes, without its weights.

    Args:
        record: as `lora_ext.weights.read_record` gives it; one without a backbone is a UNETR's.

    Raises:
        ValueError: see `build_network`.
    """
    backbone = record.get("backbone", PLAIN)
    known = {name for name in BACKBONES if name == backbone for name in _arguments(name)}
    return build_network(backbone, **{k: v for k, v in record.items() if k in known})


def _arguments(backbone: str) -> set[str]:
    return set(inspect.signature(BACKBONES[backbone]).parameters)
