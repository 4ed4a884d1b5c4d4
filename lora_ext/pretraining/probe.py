"""What an encoder knows before any fine-tuning: a linear probe beside the same on random weights.

labelled case -> frozen encoder -> features of every patch of 16^3 voxels, all taps and channels
                                   ridge regression: the share of each label in the patch

Cross-validated over cases: R^2 of held-out cases, 1 where every share is predicted and 0 where only
the labels' mean is. Random weights tell what the position and the size of the features give away.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    CropForegroundd,
    DivisiblePadd,
    LoadImaged,
    Orientationd,
    Spacingd,
)
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d, avg_pool3d
from tqdm import tqdm

from lora_ext.data import (
    Foreground,
    NormalizeModalitiesd,
    PlaceLabeld,
    SelectChannelsd,
    check_cases,
    read_task,
    split_fold,
)
from lora_ext.data.form import Item, Task
from lora_ext.images import VolumeReader
from lora_ext.networks import network_from_record
from lora_ext.networks.channel_network import ChannelNetwork
from lora_ext.networks.encoder import PATCH_SIZE
from lora_ext.pretraining.crops import content
from lora_ext.pretraining.ridge import cross_validated
from lora_ext.weights import network_for_encoder, recorded_settings
from lora_ext.weights.encoder import read_encoder
from lora_ext.weights.remote import is_remote

FOLDS, FEWEST = 5, 3  # cases in the least that can be split, and split again to choose the ridge
PATCHES = 2048  # drawn in all; the regression's matrix is of this size
LEAST = 0.1  # share of a patch that is content, or it is air and tells nothing
ROI = (96, 96, 96)  # of an encoder whose file says no size, as most published ones have it
PREPARED = {"spacing": (1.0, 1.0, 1.0), "intensity": "auto", "ct_window": (-1000.0, 1000.0),
            "pet_window": (0.0, 20.0)}  # fmt: skip

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probe:
    """What `probe_encoder` found.

    Attributes:
        encoder: the file.
        labels: names of the labels that the cases hold.
        cases: names of the cases in each fold.
        patches: number of patches.
        pretrained: R^2 by fold and label; None for a label that the fold's cases do not hold.
        random: the same on random weights of the same sizes.
    """

    encoder: str
    labels: list[str]
    cases: list[list[str]]
    patches: int
    pretrained: list[list[float | None]]
    random: list[list[float | None]]

    def record(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return asdict(self)

    def __str__(self) -> str:
        """A table for the console: mean and standard deviation over the folds."""
        ours, random = (np.array(s, dtype=float) for s in (self.pretrained, self.random))
        title = "R^2 of held-out cases"
        width = max(map(len, [*self.labels, title]))
        lines = [f"{title:<{width}}  {'this encoder':>16}  {'random weights':>16}"]
        for name, a, b in zip(self.labels, ours.T, random.T, strict=True):
            lines.append(f"{name:<{width}}  {_spread(a):>16}  {_spread(b):>16}")
        means = [np.nanmean(scores, axis=1) for scores in (ours, random)]
        better, folds = int((means[0] > means[1]).sum()), len(self.cases)
        return "\n".join([
            *lines,
            f"{'mean of the labels':<{width}}  {_spread(means[0]):>16}  {_spread(means[1]):>16}",
            f"{sum(map(len, self.cases))} cases, {self.patches} patches, mean and standard "
            f"deviation over {folds} folds; better than random weights in {better} of {folds}",
        ])  # fmt: skip


def probe_encoder(
    encoder: str | os.PathLike[str],
    dataset_dir: str | os.PathLike[str],
    modalities: Sequence[str] | None = None,
    *,
    roi_size: Sequence[int] | None = None,
    cases: int = 40,
    seed: int = 0,
    device: str | None = None,
    sizes: Mapping[str, Any] | None = None,
    **preparation: Any,
) -> Probe:
    """Probe a pre-trained encoder of any backbone on a labelled data set.

    Args:
        encoder: file or address of it, see `lora_ext.load_encoder`.
        dataset_dir: a data set of any layout that `read_task` reads.
        modalities: names of the channels to use; None for all.
        roi_size: size in voxels of what is encoded at a time; None for the encoder's own, else
            `ROI`.
        cases: how many labelled cases to take at most, drawn by `seed`.
        seed: of the draws of cases and patches, the folds and the random weights.
        device: where to encode; None for a GPU where there is one.
        sizes: sizes that the file does not say, such as ``num_heads``.
        **preparation: ``spacing``, ``intensity``, ``ct_window``, ``pet_window`` as the bundles have
            them, in place of those in the record beside the encoder, else `PREPARED`.

    Returns:
        The scores.

    Raises:
        ValueError: fewer than three labelled cases, or a bad encoder, data set or file.
    """
    task = read_task(dataset_dir, modalities, on_disk=("training",))
    names = list(modalities or task.channels)
    prepared = PREPARED | _recorded(encoder) | preparation
    size = roi_size or getattr(read_encoder(encoder), "img_size", None) or ROI
    pretrained = network_for_encoder(
        encoder, len(names), 1, size, regime="frozen", modalities=names, **sizes or {}
    )
    items, labels = _labelled(task, names, cases, seed, prepared["spacing"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = network_from_record(pretrained.config)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    networks = [network.to(place).eval() for network in (pretrained, fresh)]
    prepare = _preparation(names, size, prepared)
    rng = np.random.default_rng(seed)
    rows = [
        _patches(networks, prepare(item), list(labels), size, PATCHES // len(items), rng)
        for item in tqdm(items, "encoding cases", unit="case", disable=None)
    ]
    return _scores(os.fspath(encoder), items, labels, rows, seed)


def _recorded(encoder: str | os.PathLike[str]) -> dict[str, Any]:
    return {} if is_remote(encoder) else recorded_settings(Path(encoder).parent, PREPARED)


def _labelled(
    task: Task, names: Sequence[str], most: int, seed: int, spacing: Sequence[float]
) -> tuple[list[Item], dict[int, str]]:
    """Draw and check labelled cases; the labels that they hold, by value."""
    if min(len(task.training), most) < FEWEST:
        raise ValueError(
            f"{task.source}: expected {FEWEST} labelled cases or more to probe, got "
            f"{min(len(task.training), most)}; give a data set with more, or a larger --cases"
        )
    channels = task.channel_indices(names)
    drawn = np.random.default_rng(seed).permutation(len(task.training))[:most]
    items = [task.item(task.training[index], channels) for index in sorted(drawn)]
    found = check_cases(
        items, channel_names=task.channels, modalities=names,
        label_values=task.labels or None, spacing=spacing if all(spacing) else None,
    )  # fmt: skip
    return items, {value: task.labels.get(value, str(value)) for value in sorted(found)}


def _preparation(names: Sequence[str], size: Sequence[int], prepared: Mapping[str, Any]) -> Compose:
    """Prepare a case as the segmentation bundles do, padded to whole windows."""
    keys, mode = ["image", "label"], ("bilinear", "nearest")
    windows = {name: prepared[name] for name in ("ct_window", "pet_window")}
    inside = Foreground(names, prepared["intensity"])
    return Compose([
        LoadImaged(keys, reader=VolumeReader, image_only=True, ensure_channel_first=True),
        PlaceLabeld(keys),
        SelectChannelsd("image", len(names)),
        Orientationd(keys, axcodes="RAS", labels=None),
        CropForegroundd(keys, "image", inside, start_coord_key=None, end_coord_key=None),
        Spacingd(keys, pixdim=prepared["spacing"], mode=mode),
        NormalizeModalitiesd("image", prepared["intensity"], names, **windows),
        DivisiblePadd(keys, k=size, method="end"),
    ])  # fmt: skip


@torch.inference_mode()
def _patches(
    networks: Sequence[ChannelNetwork],
    item: Mapping[Any, Any],
    values: Sequence[int],
    size: Sequence[int],
    count: int,
    rng: np.random.Generator,
) -> tuple[list[Tensor], Tensor]:
    """Draw patches of a case: their features (n, F) by each network, and shares of labels (n, L).

    Patches of air without a label take no part.
    """
    image, label = (item[key].as_tensor() for key in ("image", "label"))
    marks = torch.stack([content(channel) for channel in image]).any(dim=0, keepdim=True)
    masks = torch.cat([marks, *[label == value for value in values]]).float()
    windows = [*_windows(image.shape[1:], size)]
    crops = [(slice(None), *window) for window in windows]
    shares = [avg_pool3d(masks[crop], PATCH_SIZE).flatten(1).T for crop in crops]
    every = torch.cat(shares)
    told = torch.nonzero((every[:, 0] >= LEAST) | (every[:, 1:] > 0).any(dim=1))[:, 0].numpy()
    drawn = np.sort(rng.permutation(told)[:count])
    found: list[list[Tensor]] = [[] for _ in networks]
    for index, crop in enumerate(crops):
        first = index * len(shares[0])
        own = drawn[(first <= drawn) & (drawn < first + len(shares[0]))] - first
        for network, rows in zip(networks, found, strict=True):
            if len(own):
                rows.append(features(network, image[crop])[torch.from_numpy(own)])
    return [torch.cat(rows) for rows in found], every[torch.from_numpy(drawn), 1:]


def _windows(shape: Sequence[int], size: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    for first in product(*(range(0, n, side) for n, side in zip(shape, size, strict=True))):
        yield tuple(slice(n, n + side) for n, side in zip(first, size, strict=True))


@torch.inference_mode()
def features(network: ChannelNetwork, image: Tensor) -> Tensor:
    """Compute what the decoder would get of every patch: all taps of all channels, side by side.

    Args:
        network: of any backbone; a tap on another grid than the patches' is averaged or repeated.
        image: shape (C, H, W, D), of the network's size.

    Returns:
        Features, shape (N, F), on the CPU; patches in the order of a ViT's tokens.
    """
    shape = image.shape[1:]
    patches = (shape[0] // PATCH_SIZE, shape[1] // PATCH_SIZE, shape[2] // PATCH_SIZE)
    place = next(network.parameters()).device
    columns = []
    for tap in network.encoder(image[None].to(place)):
        grid = next(g for g in _grids(shape) if np.prod(g) == tap.shape[2])
        volume = tap[0].transpose(1, 2).flatten(0, 1).unflatten(1, grid)
        at_patches = adaptive_avg_pool3d(volume, patches)
        columns.append(at_patches.flatten(1).T.cpu())
    return torch.cat(columns, dim=1)


def _grids(shape: Sequence[int]) -> Iterator[list[int]]:
    """The grids that a tap may be on: halved once to five times."""
    for scale in range(1, 6):
        yield [n // 2**scale for n in shape]


def _scores(
    encoder: str,
    items: Sequence[Item],
    labels: Mapping[int, str],
    rows: Sequence[tuple[list[Tensor], Tensor]],
    seed: int,
) -> Probe:
    names = [item["case"] for item in items]
    count = min(FOLDS, len(names))
    folds = [split_fold(names, fold, count, seed)[1] for fold in range(count)]
    own = {name: fold for fold, group in enumerate(folds) for name in group}
    fold_of = torch.cat([
        torch.full((len(shares),), own[name])
        for name, (_, shares) in zip(names, rows, strict=True)
    ])  # fmt: skip
    shares = torch.cat([row[1] for row in rows])
    scores = [
        cross_validated(torch.cat([row[0][index] for row in rows]), shares, fold_of)
        for index in (0, 1)
    ]
    return Probe(encoder, [*labels.values()], folds, len(shares), *scores)


def _spread(scores: np.ndarray) -> str:
    known = scores[~np.isnan(scores)]
    return f"{known.mean():.3f} ± {known.std():.3f}" if len(known) else "not in the folds"
