"""Channel-wise LoRA UNETR: multi-channel 3D segmentation on a single-channel pre-trained ViT.

The public names are loaded on first use, so that ``import lora_ext`` and the bundle generator do
not wait for torch and MONAI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ChannelLoRASwinUNETR": "lora_ext.networks",
    "ChannelLoRAUNETR": "lora_ext.networks",
    "build_network": "lora_ext.networks",
    "network_from_record": "lora_ext.networks",
    "parameter_report": "lora_ext.networks",
    "load_encoder": "lora_ext.weights",
    "load_model": "lora_ext.weights",
    "network_for_encoder": "lora_ext.weights",
    "save_adapter": "lora_ext.weights",
    "load_adapter": "lora_ext.weights",
}
# A bundle's expressions reach these as attributes: MONAI's "imports" binds whole names only.
_SUBPACKAGES = (
    "acceleration", "bundles", "data", "evaluation", "images", "networks", "phantoms",
    "pretraining", "training", "weights",
)  # fmt: skip
__all__ = [
    "ChannelLoRASwinUNETR",
    "ChannelLoRAUNETR",
    "build_network",
    "load_adapter",
    "load_encoder",
    "load_model",
    "network_for_encoder",
    "network_from_record",
    "parameter_report",
    "save_adapter",
]

if TYPE_CHECKING:
    from lora_ext.networks import (
        ChannelLoRASwinUNETR,
        ChannelLoRAUNETR,
        build_network,
        network_from_record,
        parameter_report,
    )
    from lora_ext.weights import (
        load_adapter,
        load_encoder,
        load_model,
        network_for_encoder,
        save_adapter,
    )


def __getattr__(name: str) -> Any:
    """Load a public name, or a sub-package, on first use."""
    if name in _SUBPACKAGES:
        return import_module(f"lora_ext.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'lora_ext' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return [*__all__, "__version__"]
