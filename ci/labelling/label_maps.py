"""Label maps that the server sends back: geometry, values, Dice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from labelling.report import require
from lora_ext.data import labels_to_regions
from lora_ext.data.regions import Regions
from lora_ext.evaluation import PooledDice


def read(path: Path) -> np.ndarray:
    """Voxels of a label map, as whole numbers."""
    return np.asarray(nib.load(path).dataobj).astype(np.int16)


def check_geometry(path: Path, image: Path, values: Iterable[int]) -> str:
    """A label map has its image's grid and no other values than these."""
    answer, source = nib.load(path), nib.load(image)
    shape = source.shape[:3]
    require(answer.shape == shape, f"shape {answer.shape}, the image's is {shape}")
    offset = np.abs(answer.affine - source.affine).max()
    require(offset < 1e-3, f"affine is off by {offset:.2g}")
    found = set(np.unique(np.asarray(answer.dataobj)).tolist())
    require(found <= set(values), f"values {found}, allowed are {set(values)}")
    return f"{'x'.join(map(str, shape))}, values {sorted(map(int, found))}"


def pooled_dice(pairs: Iterable[tuple[Path, Path]], regions: Regions) -> float:
    """Dice over all regions and cases of (prediction, truth)."""
    metric = PooledDice()
    for pair in pairs:
        masks = [labels_to_regions(torch.from_numpy(read(p))[None], regions)[None] for p in pair]
        metric(*masks)
    return metric.aggregate()
