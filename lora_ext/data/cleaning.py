"""Predicted regions without their stray parts: the largest component, a minimum volume."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_numpy
from scipy import ndimage

from lora_ext.data.regions import Regions, check_regions

_TOUCHING = np.ones((3, 3, 3))  # voxels that share a face, an edge or a corner


class CleanRegionsd(MapTransform):
    """Set the probabilities of a region's stray parts to 0, before they become a label map.

    A region's parts are those that it has in the label map: it contains the regions nested inside
    it. What is removed of a region is removed of these too; what is removed of an inner region
    stays in the outer one.

    MONAI's ``KeepLargestConnectedComponent`` needs scikit-image, which nothing else here does.

    Args:
        keys: keys of the probabilities, (R, H, W, D).
        regions: labels of each region, in the order of the maps.
        largest_component: the regions of which the largest part alone is kept; True for all.
        min_volume: parts of less than this many ml are removed; a number for all regions, or by
            name.
        threshold: a region is on where its probability is greater than this.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        ValueError: a name that is no region.
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Regions,
        largest_component: bool | Sequence[str] = False,
        min_volume: float | Mapping[str, float] = 0.0,
        threshold: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_regions(regions, range(256))
        every = list(regions) if largest_component is True else []
        self.largest = set(every if isinstance(largest_component, bool) else largest_component)
        given = (
            min_volume if isinstance(min_volume, Mapping) else dict.fromkeys(regions, min_volume)
        )
        self.least = {name: float(ml) for name, ml in given.items() if ml > 0}
        unknown = (self.largest | set(given)) - set(regions)
        if unknown:
            raise ValueError(f"clean-up: expected names of {list(regions)}, got {sorted(unknown)}")
        self.regions = {name: set(values) for name, values in regions.items()}
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its probabilities cleaned.

        Raises:
            ValueError: a minimum volume, and probabilities that do not know their voxel size.
        """
        item = dict(data)
        for key in self.key_iterator(item) if self.largest or self.least else ():
            voxels = self._clean(convert_to_numpy(item[key]).copy(), self._voxel_ml(item[key]))
            item[key] = convert_to_dst_type(voxels, item[key])[0]
        return item

    def _voxel_ml(self, probabilities: torch.Tensor) -> float:
        if not self.least:
            return 0.0
        if not isinstance(probabilities, MetaTensor):
            raise ValueError(
                "min_volume: expected probabilities as a MetaTensor, which knows its voxel size, "
                f"got {type(probabilities).__name__}"
            )
        return abs(float(np.linalg.det(convert_to_numpy(probabilities.affine)[:3, :3]))) / 1000

    def _clean(self, voxels: np.ndarray, voxel_ml: float) -> np.ndarray:
        maps = dict(zip(self.regions, voxels, strict=True))  # views
        inside = {
            name: [
                maps[other] for other in self.regions if self.regions[other] < self.regions[name]
            ]
            for name in self.regions
        }
        for name, within in inside.items():
            for inner in within:  # which the label map makes a part of this region
                np.maximum(maps[name], inner, out=maps[name])
        for name in sorted(self.regions, key=lambda name: -len(self.regions[name])):
            if name in self.largest or name in self.least:
                on = maps[name] > self.threshold
                stray = on & ~_kept(on, name in self.largest, self.least.get(name, 0.0), voxel_ml)
                for changed in (maps[name], *inside[name]):
                    changed[stray] = 0
        return voxels


def _kept(mask: np.ndarray, largest: bool, least: float, voxel_ml: float) -> np.ndarray:
    """The parts of a mask (H, W, D) that stay; of two of the same size the first one is larger."""
    parts, count = ndimage.label(mask, _TOUCHING)
    if not count:
        return mask
    sizes = np.bincount(parts.ravel())
    stays = np.full(count + 1, True)
    stays[0], sizes[0] = False, 0
    if largest:
        stays &= np.arange(count + 1) == sizes.argmax()
    if least:
        stays &= sizes * voxel_ml >= least * (1 - 1e-6)  # a part of just that volume stays
    return stays[parts]
