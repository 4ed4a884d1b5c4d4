"""Random crops of volumes that hold enough of the body, so that no network learns to paint air."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.utils import get_random_patch
from monai.transforms import MapTransform, Randomizable, SpatialCrop
from torch import Tensor

LEAST = 0.5  # share of a crop that shall be content
TRIES = 10  # crops drawn for one that is kept


def content(volume: Tensor) -> Tensor:
    """Mark what is brighter than its volume's mean, as ANTs' ``get_mask`` does: not air.

    It needs no modality: around the head of skull-stripped MR lie zeros, around any other body
    noise, air or no uptake, and all of these are darker than the mean.

    Args:
        volume: any shape, normalised by `lora_ext.data.NormalizeModalitiesd`, whose MR keeps its
            background at exactly 0; so does padding.

    Returns:
        True where the volume has content.
    """
    plain = torch.as_tensor(volume).as_subclass(Tensor)
    from_darkest = torch.where(plain != 0, plain - plain.min(), 0)
    return from_darkest > from_darkest.mean()


class RandContentCropd(Randomizable, MapTransform):
    """Draw crops of which at least half is content, where ten draws find one; else the fullest.

    Args:
        keys: keys of the volumes (1, H, W, D); each is cropped on its own.
        roi_size: size of a crop in voxels; no volume is smaller.
        num_samples: number of crops of each volume.
        allow_missing_keys: whether an item may lack a key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        roi_size: Sequence[int],
        num_samples: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.roi_size = tuple(roi_size)
        self.num_samples = num_samples

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Return `num_samples` items that differ in their crops alone."""
        items: list[dict[Hashable, Any]] = [dict(data) for _ in range(self.num_samples)]
        for key in self.key_iterator(dict(data)):
            mark = content(data[key])[0]
            for item in items:
                item[key] = SpatialCrop(roi_slices=self._draw(mark))(data[key])
        return items

    def _draw(self, mark: Tensor) -> tuple[slice, ...]:
        best, most = None, -1.0
        for _ in range(TRIES):
            place = get_random_patch(mark.shape, self.roi_size, self.R)
            share = float(mark[place].count_nonzero()) / float(np.prod(self.roi_size))
            if share > most:
                best, most = place, share
            if share >= LEAST:
                break
        return best or ()
