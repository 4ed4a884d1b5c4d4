"""The bundles: their one source, the generator that writes them, and what starts a run of them.

What starts a run is loaded on first use, so that the generator does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["bundle_root", "plain_errors", "settle", "start"]

if TYPE_CHECKING:
    from lora_ext.bundles.starting import bundle_root, plain_errors, settle, start


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'lora_ext.bundles' has no attribute {name!r}")
    return getattr(import_module("lora_ext.bundles.starting"), name)
