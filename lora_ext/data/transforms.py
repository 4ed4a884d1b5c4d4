"""Transforms that MONAI lacks: channels by number, names of cases."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey, MetaKeys, convert_to_numpy

from lora_ext.images.image_file import case_name
from lora_ext.images.reader import SEGMENTS
from lora_ext.images.resampling import onto_grid

_PLACE = (MetaKeys.AFFINE, MetaKeys.ORIGINAL_AFFINE, MetaKeys.SPATIAL_SHAPE)


class SelectChannelsd(MapTransform):
    """Keep ``item["channels"]`` of each image (C, H, W, D), in that order.

    It stands after ``LoadImaged(ensure_channel_first=True)`` and takes ``channels`` out of the
    item. An item without ``channels``, as MONAI Label passes it, keeps the file's channels as they
    are.

    Args:
        keys: keys of the images.
        num_channels: number of channels that the result must have, None for any.
        allow_missing_keys: whether an item may lack a key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_channels: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.num_channels = num_channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Select the channels of one item.

        Args:
            data: the item, its images (C, H, W, D).

        Returns:
            The item without ``channels``, its images of `num_channels` channels.

        Raises:
            ValueError: an image without one of the channels, or with another number of channels
                than `num_channels`.
        """
        item = dict(data)
        channels = item.pop("channels", None)
        for key in self.key_iterator(item):
            image = item[key]
            meta = image.meta if isinstance(image, MetaTensor) else {}
            name = meta.get(ImageMetaKey.FILENAME_OR_OBJ) or item.get("case") or key
            if channels is not None:
                item[key] = image = _select(image, [int(channel) for channel in channels], name)
            if self.num_channels not in (None, image.shape[0]):
                raise ValueError(
                    f"{name}: expected {self.num_channels} channels, which the network takes, "
                    f"got {image.shape[0]}"
                )
        return item


class NameAfterCased(MapTransform):
    """Name each image after its case, so that ``SaveImaged`` names the segmentation after it.

    The image's meta data carry ``<case>.nii.gz`` as the file name where the item has a ``case``.

    MONAI Label puts ``image_path`` into the item, and no case. ``Spacingd`` of MONAI 1.6.1 takes
    every key that starts with ``image_`` for meta data of a NIfTI image and fails on a path. So in
    such an item the image is named after its file without an ending.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Name the images of one item.

        Args:
            data: the item; images without meta data, and those without a name, stay as they are.

        Returns:
            The item, with copies of the named images: the caller's keep their meta data.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            path = item.get(f"{key}_path")
            name = f"{item['case']}.nii.gz" if "case" in item else None
            if name is None and isinstance(path, str):
                name = case_name(path)
            if name is not None and isinstance(item[key], MetaTensor):
                item[key] = item[key][:]  # a view with meta data of its own
                item[key].meta[ImageMetaKey.FILENAME_OR_OBJ] = name
        return item


class PlaceLabeld(MapTransform):
    """Place label maps of 3D Slicer (1, h, w, d), which are cropped, on the grid of their image.

    Everything else stays as it is: a label map on another grid than its image was refused before.

    Args:
        keys: keys of what was loaded, label maps among them.
        reference: key of the image (C, H, W, D).
        allow_missing_keys: whether an item may lack a key.
    """

    def __init__(
        self, keys: KeysCollection, reference: str = "image", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its label maps (1, H, W, D) on the image's grid."""
        item = dict(data)
        for key in self.key_iterator(item):
            label, image = item[key], item[self.reference]
            if not isinstance(label, MetaTensor) or label.meta.pop(SEGMENTS, None) is None:
                continue
            affines = [convert_to_numpy(of.affine) for of in (label, image)]
            voxels = onto_grid(
                convert_to_numpy(label[0]), affines[0], image.shape[1:], affines[1], nearest=True
            )
            place = {name: image.meta[name] for name in _PLACE if name in image.meta}
            item[key] = MetaTensor(torch.from_numpy(voxels)[None], meta={**label.meta, **place})
        return item


def _select(image: Any, channels: list[int], name: object) -> Any:
    if not channels or not all(0 <= channel < image.shape[0] for channel in channels):
        raise ValueError(f"{name}: expected the channels {channels}, got {image.shape[0]} channels")
    return image[channels]
