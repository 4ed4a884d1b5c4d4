"""Segmentations of 3D Slicer (``.seg.nrrd``): segments in layers, cropped to what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lora_ext.images.image_file import ImageFile

_MOST = 255  # labels


@dataclass(frozen=True)
class _Segment:
    name: str
    layer: int
    stored: int  # the value in its layer
    value: int  # in the label map


def label_map(image: ImageFile, fields: Mapping[str, str]) -> ImageFile:
    """Make one label map of a segmentation's layers.

    Values are those that Slicer shows as label values where each segment has its own, else 1, 2,
    ... in the order of the segments. Of nested segments the inner one gives the label.

    Args:
        image: the file as an image, (H, W, D) or (H, W, D, layers).
        fields: its header's own fields, such as ``Segment0_Name``.

    Returns:
        The label map (H, W, D), with names by value.

    Raises:
        ValueError: a header that contradicts itself; when it is read, segments that overlap without
            one containing the other.
    """
    segments = _segments(image, fields)

    def read() -> np.ndarray:
        voxels = image.read()
        layers = voxels[..., None] if voxels.ndim == 3 else voxels
        return _merged(image.path, segments, [layers[..., s.layer] == s.stored for s in segments])

    names = {segment.value: segment.name for segment in segments}
    return replace(image, shape=image.shape[:3], read=read, segments=names)


def _segments(image: ImageFile, fields: Mapping[str, str]) -> list[_Segment]:
    found: list[_Segment] = []
    while f"Segment{len(found)}_ID" in fields:
        number = len(found)
        own = {key: fields.get(f"Segment{number}_{key}") for key in ("Name", "Layer", "LabelValue")}
        layer = own["Layer"] or str(number if image.num_channels > 1 else 0)
        stored = own["LabelValue"] or "1"
        if not (layer.isdecimal() and stored.isdecimal() and int(layer) < image.num_channels):
            raise ValueError(
                f"{image.path}: expected the segment {number} in one of {image.num_channels} "
                f"layers and with a label value, got the layer {layer} and the value {stored}"
            )
        name = own["Name"] or f"Segment_{number + 1}"
        found.append(_Segment(name, int(layer), int(stored), int(stored)))
    values = [segment.value for segment in found]
    if len(set(values)) < len(values) or not all(1 <= value <= _MOST for value in values):
        found = [replace(segment, value=number) for number, segment in enumerate(found, 1)]
    return found


def _merged(path: str, segments: Sequence[_Segment], masks: Sequence[np.ndarray]) -> np.ndarray:
    """Paint the segments, larger ones first."""
    labels = np.zeros(masks[0].shape, np.uint8)
    sizes = [int(mask.sum()) for mask in masks]
    painted: list[int] = []
    for index in sorted(range(len(masks)), key=lambda index: -sizes[index]):
        for other in painted:
            common = int((masks[index] & masks[other]).sum())
            if common not in (0, sizes[index]):
                raise ValueError(
                    f"{path}: expected segments apart or one inside the other, got "
                    f"{segments[index].name} and {segments[other].name}, which share {common} "
                    "voxels; make one label map of them in 3D Slicer"
                )
        labels[masks[index]] = segments[index].value
        painted.append(index)
    return labels
