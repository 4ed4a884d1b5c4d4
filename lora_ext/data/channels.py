"""Keeps the channels of an image that the item names, and names the image after its case."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from lora_ext.data.formats import case_name


class SelectChannelsd(MapTransform):
    """Keeps ``item["channels"]`` of each image (C, H, W, D), in that order.

    It stands after ``LoadImaged(ensure_channel_first=True)`` and takes ``channels`` out of the
    item. An item without ``channels``, as MONAI Label passes it, keeps the file's channels as they
    are. Where the item has a ``case``, the image's meta data carry ``<case>.nii.gz`` as the file
    name, so that ``SaveImaged`` names the segmentation after the case.

    MONAI Label also puts ``image_path`` into the item. ``Spacingd`` of MONAI 1.6.1 takes every key
    that starts with ``image_`` for meta data of a NIfTI image and fails on a path. So in such an
    item the image is named after its case without an ending.

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
        """Selects the channels of one item.

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
            name = _file_name(image, item, key)
            if channels is not None:
                image = _select(image, [int(channel) for channel in channels], name)
            if self.num_channels not in (None, image.shape[0]):
                raise ValueError(
                    f"{name}: found {image.shape[0]} channels; the network takes "
                    f"{self.num_channels}"
                )
            if isinstance(image, MetaTensor):
                image = _renamed(image, item, key)
            item[key] = image
        return item


def _select(image: Any, channels: list[int], name: str) -> Any:
    if not channels or not all(0 <= channel < image.shape[0] for channel in channels):
        raise ValueError(
            f"{name}: found {image.shape[0]} channels; the channels asked for are {channels}"
        )
    return image[channels]


def _renamed(image: MetaTensor, item: Mapping[Hashable, Any], key: Hashable) -> Any:
    path = item.get(f"{key}_path")
    if "case" in item:
        return _named(image, f"{item['case']}.nii.gz")
    return _named(image, case_name(path)) if isinstance(path, str) else image


def _named(image: Any, name: str) -> Any:
    view = image[:]  # with meta data of its own, so that the caller's stay as they were
    view.meta[ImageMetaKey.FILENAME_OR_OBJ] = name
    return view


def _file_name(image: Any, item: Mapping[Hashable, Any], key: Hashable) -> str:
    meta = image.meta if isinstance(image, MetaTensor) else {}
    return str(meta.get(ImageMetaKey.FILENAME_OR_OBJ) or item.get("case") or key)
