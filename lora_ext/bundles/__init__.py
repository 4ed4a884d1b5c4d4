"""The bundles: their one source, the generator that writes them, and what starts a run of them."""

from lora_ext.bundles.starting import bundle_root, plain_errors, settle, start

__all__ = ["bundle_root", "plain_errors", "settle", "start"]
