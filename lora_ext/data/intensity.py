"""What the values of MR, CT and PET mean: their normalisation, and what is outside of the body.

The one place for pre-training and segmentation, so that an encoder meets the scale it was made on:

- **MR** (``mr``) has no unit: zero mean and unit variance over the voxels of a volume that are not
  0. A voxel that is exactly 0 is background and stays 0.
- **CT** (``ct``) is in Hounsfield units: clipped to a window, less its centre, divided by the
  standard deviation of values spread evenly over it. 0 HU is water; at `CT_AIR` or below is air.
- **PET** (``pet``) is in SUV, or in any fixed unit of uptake: clipped to a window, less its lower
  end, divided as for CT. A 0 is no uptake; no value says that a voxel is outside.

The windows are fixed numbers, and not each volume's own: the same tissue has the same value in
every patient, and the record of a model can hold them.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, NormalizeIntensity
from monai.utils import ImageMetaKey, convert_to_dst_type
from torch import Tensor

logger = logging.getLogger(__name__)

MR, CT, PET = KINDS = ("mr", "ct", "pet")
AUTO = "auto"
CT_AIR = -500.0  # HU; air is -1000, fat -100, and no MR is that negative
CT_WINDOW = (-1000.0, 1000.0)  # HU
PET_WINDOW = (0.0, 20.0)  # SUV

Intensity = str | Mapping[str, str]  # a kind, `AUTO`, or one of them by the name of a channel

_NAMES = {CT: {"ct", "cbct", "hu"}, PET: {"pet", "pt", "suv", "fdg"}}


def kind_of(name: str) -> str:
    """Tell what a channel holds by its name.

    Args:
        name: such as ``CT``, ``FDG-PET`` or ``T1w``.

    Returns:
        ``ct`` or ``pet`` where a word of the name says so, else ``mr``.

    Raises:
        ValueError: a name with words of both.
    """
    found = _kinds_in(name)
    if len(found) > 1:
        raise ValueError(
            f"channel {name!r}: expected a name of CT or of PET, got one of both; say which with "
            f"--intensity \"{{'{name}': 'pet', ...}}\""
        )
    return found[0] if found else MR


def channel_kinds(modalities: Sequence[str], intensity: Intensity) -> dict[str, str]:
    """Settle the kind of every channel of a network.

    Args:
        modalities: names of the channels.
        intensity: a kind for all, ``auto`` to go by `kind_of`, or either by the name of a channel
            (upper and lower case alike).

    Returns:
        ``mr``, ``ct`` or ``pet`` by the name of a channel, in the order of `modalities`.

    Raises:
        ValueError: another kind, or a channel without one.
    """
    told = _by_name(intensity)
    kinds = {}
    for name in modalities:
        kind = told.get(name.lower()) if told is not None else str(intensity)
        if kind not in (*KINDS, AUTO):
            raise ValueError(
                f"intensity: expected one of {', '.join((AUTO, *KINDS))} for the channel {name}, "
                f"got {kind or 'none'}"
            )
        kinds[name] = kind_of(name) if kind == AUTO else kind
    return kinds


def recorded_kinds(modalities: Sequence[str], intensity: Intensity) -> dict[str, str]:
    """Settle the kinds for the record of a model, and warn of CT and PET that count as MR.

    Args:
        modalities: see `channel_kinds`.
        intensity: see `channel_kinds`.

    Returns:
        See `channel_kinds`.
    """
    kinds = channel_kinds(modalities, intensity)
    for name, kind in kinds.items():
        if kind == MR and (named := _kinds_in(name)):
            logger.warning(
                "channel %s is normalised as MR, with its zeros left out, though its name says %s; "
                "--intensity auto goes by the names",
                *(name, " or ".join(named).upper()),
            )
    return kinds


def volume_kind(volume: Tensor, intensity: Intensity, name: str | None = None) -> str:
    """Settle the kind of one volume, whose channel may have no name.

    Args:
        volume: any shape, as read from the file.
        intensity: as for `channel_kinds`; a name that a mapping lacks counts as ``auto``.
        name: name of its channel; without one ``auto`` takes a volume with a voxel at or below
            `CT_AIR` for CT, and any other for MR.

    Returns:
        ``mr``, ``ct`` or ``pet``.

    Raises:
        ValueError: see `channel_kinds`.
    """
    if name is None and (_by_name(intensity) is not None or intensity == AUTO):
        return CT if float(volume.min()) <= CT_AIR else MR
    return named_kind(name or "volume", intensity)


def named_kind(name: str, intensity: Intensity) -> str:
    """Settle the kind of a volume whose channel has a name.

    Args:
        name: name of the channel.
        intensity: as for `volume_kind`.

    Returns:
        ``mr``, ``ct`` or ``pet``.

    Raises:
        ValueError: see `channel_kinds`.
    """
    told = _by_name(intensity)
    kind = intensity if told is None else told.get(name.lower(), AUTO)
    return channel_kinds([name], str(kind))[name]


class NormalizeModalitiesd(MapTransform):
    """Bring every channel of an image to one scale by the rule of its modality, see above.

    Args:
        keys: keys of the images, (C, H, W, D).
        intensity: see `channel_kinds`.
        modalities: names of the channels, in their order. None for volumes of one channel
            (1, H, W, D), each an item with its channel's name at ``modality`` or without one; see
            `volume_kind`. ``modality`` is taken out of the item.
        ct_window: lower and upper end in HU.
        pet_window: lower and upper end in the file's unit.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        ValueError: see `channel_kinds`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        intensity: Intensity,
        modalities: Sequence[str] | None = None,
        ct_window: Sequence[float] = CT_WINDOW,
        pet_window: Sequence[float] = PET_WINDOW,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.intensity = intensity
        self.kinds = (
            None if modalities is None else [*channel_kinds(modalities, intensity).values()]
        )
        self.windows = {CT: tuple(ct_window), PET: tuple(pet_window)}
        self.over_nonzero = NormalizeIntensity(nonzero=True, channel_wise=True)
        channel_kinds(() if isinstance(intensity, Mapping) else ("volume",), intensity)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its images normalised.

        Raises:
            ValueError: an image with another number of channels than `modalities`, or PET of which
                most lies above its window, as it does in another unit.
        """
        item = dict(data)
        modality = item.pop("modality", None)
        for key in self.key_iterator(item):
            image = item[key]
            kinds = self.kinds or [volume_kind(image, self.intensity, modality)]
            name = getattr(image, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, key)
            if len(kinds) != len(image):
                raise ValueError(f"{name}: expected {len(kinds)} channels, got {len(image)}")
            plain = torch.as_tensor(image).as_subclass(Tensor)
            result = plain.to(torch.float32, copy=True)
            for kind in set(kinds):
                rows = [row for row, own in enumerate(kinds) if own == kind]
                result[rows] = self._normalize(plain[rows], kind, name)
            item[key] = convert_to_dst_type(result, image, dtype=torch.float32)[0]
        return item

    def _normalize(self, volumes: Tensor, kind: str, name: object) -> Tensor:
        if kind == MR:
            return torch.as_tensor(self.over_nonzero(volumes))
        low, high = self.windows[kind]
        if kind == PET and 2 * (volumes > high).sum() > (volumes > max(low, 0)).sum():
            raise ValueError(
                f"{name}: expected PET within pet_window, {low:g} to {high:g}, got most of its "
                f"uptake above it, up to {float(volumes.max()):g}; if that is another unit than "
                "SUV, pass --pet_window in the file's unit"
            )
        zero = low if kind == PET else (low + high) / 2
        return (volumes.clamp(low, high) - zero) / ((high - low) / math.sqrt(12))


class Foreground:
    """Mark the voxels that are inside, for MONAI's ``CropForegroundd``.

    A voxel is outside if it is outside in every channel: in MR where it is exactly 0, as around the
    head of skull-stripped images and phantoms; in CT where it is air, or the padding below it; in
    PET nowhere, so that an image with a PET channel keeps its size.

    Args:
        modalities: names of the channels, in their order.
        intensity: see `channel_kinds`.
    """

    def __init__(self, modalities: Sequence[str], intensity: Intensity) -> None:
        self.kinds = [*channel_kinds(modalities, intensity).values()]

    def __call__(self, image: Tensor) -> Tensor:
        """Mark the voxels of each channel.

        Args:
            image: shape (C, H, W, D), as read from the file.

        Returns:
            True where a channel is inside; True everywhere if no channel is anywhere, so that a
            blank image keeps its size.
        """
        plain = torch.as_tensor(image).as_subclass(Tensor)
        marked = torch.ones_like(plain, dtype=torch.bool)
        for row, kind in enumerate(self.kinds):
            if kind != PET:
                marked[row] = plain[row] != 0 if kind == MR else plain[row] > CT_AIR
        return marked if bool(marked.any()) else torch.ones_like(marked)


def _kinds_in(name: str) -> list[str]:
    """Return which of CT and PET the words of a name say."""
    words = {word.rstrip("0123456789") for word in re.split(r"[\W_]+", name.lower())}
    return [kind for kind, known in _NAMES.items() if words & known]


def _by_name(intensity: Intensity) -> dict[str, str] | None:
    if not isinstance(intensity, Mapping):
        return None
    return {str(name).lower(): str(kind) for name, kind in intensity.items()}
