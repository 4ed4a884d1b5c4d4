"""The bundles: their one source, the generator that writes them, and what a run needs of them."""

from lora_ext.bundles.errors import plain_errors
from lora_ext.bundles.location import bundle_root

__all__ = ["bundle_root", "plain_errors"]
