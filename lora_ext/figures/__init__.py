"""Everything that draws: slices of volumes, regions over them, reconstructions."""

from lora_ext.figures.overlay import overlay_figure, overlay_from_files, save_figure
from lora_ext.figures.reconstruction import reconstruction_figure

__all__ = ["overlay_figure", "overlay_from_files", "reconstruction_figure", "save_figure"]
