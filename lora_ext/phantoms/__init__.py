"""Phantoms: synthetic multi-channel tasks on disk, the embedded default data set.

Anatomy and contrast are simple, the layout and the geometry are those of the Medical Segmentation
Decathlon, so everything that runs on a phantom runs on the real task. No channel shows all labels:
only a network that combines channels can solve a phantom.
"""

from lora_ext.phantoms.write import ANATOMIES, ensure_phantoms, write_phantoms

__all__ = ["ANATOMIES", "ensure_phantoms", "write_phantoms"]
