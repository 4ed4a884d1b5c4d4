"""Intensities of one volume, MR or CT, brought to one scale by rules that look at it alone.

- **CT** is recognised by a voxel at or below -500: Hounsfield units put air at -1000, and no MR
  image is that negative. Values are clipped to -1000 .. 1000 HU and brought to zero mean and unit
  variance over all voxels.
- **MR** is everything else. Voxels that are exactly 0 are background and stay 0. The others are
  clipped to their 0.5th and 99.5th percentile, since MR has no unit and bright vessels or fat have
  no limit, and brought to zero mean and unit variance.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import ClipIntensityPercentiles, MapTransform, NormalizeIntensity
from torch import Tensor

KINDS = ("auto", "mr", "ct")
CT_BELOW = -500.0  # a voxel at or below this makes a volume CT (air is -1000 HU)
CT_WINDOW = (-1000.0, 1000.0)  # HU
MR_PERCENTILES = (0.5, 99.5)


def is_ct(volume: Tensor) -> bool:
    """Tell CT from MR by its values.

    Args:
        volume: any shape, in Hounsfield units if it is CT.
    """
    return float(volume.min()) <= CT_BELOW


class NormalizeVolumed(MapTransform):
    """Normalises single-channel volumes (1, H, W, D) by the rules of MR or of CT.

    Args:
        keys: keys of the volumes.
        kind: ``auto`` decides by `is_ct` for each volume, ``mr`` and ``ct`` decide for all.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        ValueError: for another kind.
    """

    def __init__(
        self, keys: KeysCollection, kind: str = "auto", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if kind not in KINDS:
            raise ValueError(f"intensity: found {kind!r}; allowed are {', '.join(KINDS)}")
        self.kind = kind
        self.over_all = NormalizeIntensity()
        self.over_nonzero = NormalizeIntensity(nonzero=True)
        self.clip = ClipIntensityPercentiles(*MR_PERCENTILES)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its volumes normalised."""
        item = dict(data)
        for key in self.key_iterator(item):
            volume = item[key]
            ct = is_ct(volume) if self.kind == "auto" else self.kind == "ct"
            item[key] = self.over_all(volume.clamp(*CT_WINDOW)) if ct else self._mr(volume)
        return item

    def _mr(self, volume: Tensor) -> Tensor:
        inside = volume != 0
        if not inside.any():
            return volume
        clipped = volume.clone()
        clipped[inside] = torch.as_tensor(self.clip(volume[inside].as_subclass(torch.Tensor)))
        return torch.as_tensor(self.over_nonzero(clipped))
