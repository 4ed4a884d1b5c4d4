"""A bundle as one zip file that needs no installed `lora_ext`, and the wheel beside it."""

from lora_ext.bundles.packaging.package import package_bundle

__all__ = ["package_bundle"]
