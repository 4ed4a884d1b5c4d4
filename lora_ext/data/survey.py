"""What the labelled cases of a data set measure: sizes, voxels, labels, values of CT and PET.

Cases are prepared as training prepares them, up to the resampling.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from monai.transforms import Compose, CropForegroundd, LoadImaged, Orientationd
from tqdm import tqdm

from lora_ext.data.form import Item
from lora_ext.data.intensity import MR, PET, Foreground, channel_kinds
from lora_ext.data.transforms import SelectChannelsd
from lora_ext.images.limits import voxel_size
from lora_ext.images.reader import VolumeReader

logger = logging.getLogger(__name__)

SAMPLE = 10_000  # labelled voxels of a case and a channel whose values are kept
_THREADS = min(4, os.cpu_count() or 1)  # each holds a whole case


@dataclass(frozen=True)
class CaseSurvey:
    """What one case measures, its axes to the right, to the front and up.

    Attributes:
        case: its name.
        spacing: voxel size in mm.
        size: voxels of the box around the foreground, see `Foreground`.
        labels: number of voxels by label, background left out.
        values: up to `SAMPLE` values of labelled voxels by channel, of CT and PET alone; of PET as
            many of all voxels too, since the highest uptake is not always that of what is labelled.
        lowest: lowest value by channel.
    """

    case: str
    spacing: tuple[float, ...]
    size: tuple[int, ...]
    labels: Mapping[int, int]
    values: Mapping[str, np.ndarray] = field(repr=False)
    lowest: Mapping[str, float]


def survey_cases(items: Sequence[Item], kinds: Mapping[str, str]) -> list[CaseSurvey]:
    """Read every case once, several at a time, with a progress bar.

    Args:
        items: checked case items with labels, see `lora_ext.data`.
        kinds: kinds of the channels by name, in the items' order, see `channel_kinds`.

    Returns:
        A survey of each case, in the order of `items`.
    """
    keys = ["image", "label"]
    inside = Foreground(list(kinds), channel_kinds(list(kinds), kinds))
    prepare = Compose([
        LoadImaged(keys, reader=VolumeReader, image_only=True, ensure_channel_first=True),
        SelectChannelsd("image", len(kinds)),
        Orientationd(keys, axcodes="RAS", labels=None),
        CropForegroundd(
            keys, "image", select_fn=inside, start_coord_key=None, end_coord_key=None
        ),
    ])  # fmt: skip
    logger.info("reading %d cases to plan for them", len(items))
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda item: _survey(item, prepare, kinds), items)
        hidden = not sys.stderr.isatty()
        return list(tqdm(found, "reading cases", len(items), unit="case", disable=hidden))


def _survey(item: Item, prepare: Compose, kinds: Mapping[str, str]) -> CaseSurvey:
    read = prepare(item)
    image, label = read["image"].numpy(), read["label"].numpy()[0]
    values, counts = np.unique(label[label != 0], return_counts=True)
    inside = _spread(np.flatnonzero(label))
    anywhere = np.concatenate([inside, _spread(np.arange(label.size))])
    return CaseSurvey(
        case=item["case"],
        spacing=voxel_size(read["image"].affine.numpy()),
        size=image.shape[1:],
        labels={int(value): int(count) for value, count in zip(values, counts, strict=True)},
        values={
            name: image[row].ravel()[anywhere if kind == PET else inside]
            for row, (name, kind) in enumerate(kinds.items())
            if kind != MR
        },
        lowest={name: float(channel.min()) for name, channel in zip(kinds, image, strict=True)},
    )


def _spread(places: np.ndarray) -> np.ndarray:
    return places[:: max(1, -(-len(places) // SAMPLE))]
