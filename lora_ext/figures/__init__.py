"""Everything that draws: slices of volumes, regions over them, reconstructions, the network."""

from lora_ext.figures.architecture import architecture_figure
from lora_ext.figures.overlay import overlay_figure, overlay_from_files, save_figure
from lora_ext.figures.reconstruction import reconstruction_figure

__all__ = [
    "architecture_figure",
    "overlay_figure",
    "overlay_from_files",
    "reconstruction_figure",
    "save_figure",
]
