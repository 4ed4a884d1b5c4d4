"""Regions: unions of labels that a network predicts, and the way back to a label map.

A task's regions are an ordered mapping from a name to the labels it is made of, for example
``{"TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}`` (nested) or ``{"PZ": [1], "TZ": [2]}`` (disjoint).
MONAI's ``ConvertToMultiChannelBasedOnBratsClassesd`` has the label values of BraTS built in, which
are not those of the Decathlon's Task01.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey, convert_to_dst_type

from lora_ext.images.listing import counted

Regions = Mapping[str, Sequence[int]]


def check_regions(regions: Regions, labels: Collection[int]) -> None:
    """Check that every region is made of labels that the data set has.

    Args:
        regions: labels of each region.
        labels: the data set's label values, background (0) included.

    Raises:
        ValueError: no region, a region without labels, or a label that is background, not in
            `labels` or repeated.
    """
    allowed = sorted(set(labels) - {0})
    if not regions:
        raise ValueError("regions: expected a mapping from region name to labels, got none")
    for name, values in regions.items():
        wrong = [value for value in values if value not in allowed]
        if wrong or not values or len(set(values)) < len(values):
            raise ValueError(
                f"region {name}: expected different labels out of {allowed}, got {list(values)}"
            )


def own_labels(regions: Regions) -> dict[str, int]:
    """Return the one label of each region that is in no region nested inside it.

    Args:
        regions: labels of each region.

    Returns:
        The own label of each region, for example WT 1, TC 2, ET 3.

    Raises:
        ValueError: regions that overlap without one containing the other, that do not have exactly
            one own label each, or labels outside 1 .. 255.
    """
    check_regions(regions, range(256))
    sets = {name: set(values) for name, values in regions.items()}
    own = {}
    for name, values in sets.items():
        for other, theirs in sets.items():
            if values & theirs and not (values <= theirs or theirs <= values):
                raise ValueError(
                    f"regions {name} {sorted(values)} and {other} {sorted(theirs)}: expected "
                    "nested or disjoint regions, got a partial overlap"
                )
        rest = values.difference(*(v for n, v in sets.items() if n != name and v <= values))
        if len(rest) != 1:
            raise ValueError(
                f"region {name} {sorted(values)}: expected one label that is in no region inside "
                f"it, to decode regions into labels, got {len(rest)}"
            )
        own[name] = rest.pop()
    return own


def segment_names(regions: Regions, known: Regions, labels: Mapping[str, str]) -> dict[int, str]:
    """Name the labels of a segmentation.

    Args:
        regions: the regions that are segmented.
        known: those that the names are of.
        labels: names by label value, as text.

    Returns:
        The names by label value: those of `labels`; for other regions than `known`, and labels
        without a name, the region whose own label it is.
    """
    named = labels if regions == known else {}
    return {value: named.get(str(value), name) for name, value in own_labels(regions).items()}


def labels_to_regions(label: torch.Tensor, regions: Regions) -> torch.Tensor:
    """Turn a label map into one binary map per region.

    Args:
        label: label map, (1, H, W, D); labels that are in no region count as background.
        regions: labels of each region.

    Returns:
        0/1 maps, (R, H, W, D) float32, in the mapping's order; a MetaTensor stays one.

    Raises:
        ValueError: `label` has more than one channel, or values that are no whole numbers.
    """
    if label.shape[0] != 1:
        raise ValueError(f"label map: expected 1 channel, got {label.shape[0]}")
    plain = torch.as_tensor(label).as_subclass(torch.Tensor)[0]
    if plain.is_floating_point() and (wrong := plain[plain != plain.round()]).numel():
        name = getattr(label, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, "label map")
        raise ValueError(
            f"{name}: expected every label to be an integer, got {wrong[0].item()!r} in "
            f"{counted(wrong.numel(), 'voxel')}; resample label maps with nearest neighbours"
        )
    maps = [
        torch.isin(plain, torch.tensor(list(values), dtype=plain.dtype, device=plain.device))
        for values in regions.values()
    ]
    return convert_to_dst_type(torch.stack(maps), label, dtype=torch.float32)[0]


def regions_to_labels(
    probabilities: torch.Tensor, regions: Regions, threshold: float = 0.5
) -> torch.Tensor:
    """Turn one probability map per region into a label map.

    A region is on where its probability is above the threshold. Where nested regions are on, the
    innermost gives the label. Between regions of which none contains the other, the one with the
    higher probability wins (the highest of the regions that are on inside each; ties: the first in
    the mapping).

    Args:
        probabilities: probabilities, (R, H, W, D), in the mapping's order.
        regions: labels of each region, nested or disjoint.
        threshold: a region is on where its probability is greater than this.

    Returns:
        Label map, (1, H, W, D) uint8, in the data set's own labels; a MetaTensor stays one.

    Raises:
        ValueError: the number of maps differs from the number of regions, or the regions cannot be
            decoded (see `own_labels`).
    """
    own = own_labels(regions)
    if probabilities.shape[0] != len(regions):
        raise ValueError(
            f"probabilities: expected {len(regions)} maps ({', '.join(regions)}), "
            f"got {probabilities.shape[0]}"
        )
    plain = torch.as_tensor(probabilities).as_subclass(torch.Tensor)
    plain = plain if plain.is_floating_point() else plain.float()
    off = torch.full_like(plain[0], -torch.inf)
    strength = {
        name: torch.where(p > threshold, p, off) for name, p in zip(regions, plain, strict=True)
    }
    label, _ = _decode(list(regions), regions, own, strength)
    return convert_to_dst_type(label[None], probabilities, dtype=torch.uint8)[0]


class LabelsToRegionsd(MapTransform):
    """Turn label maps (1, H, W, D) into 0/1 region maps (R, H, W, D), `labels_to_regions`.

    Args:
        keys: keys of the label maps.
        regions: labels of each region, in the order of the network's outputs.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        ValueError: a region without labels or with the background among them.
    """

    def __init__(
        self, keys: KeysCollection, regions: Regions, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_regions(regions, range(256))
        self.regions = {name: list(values) for name, values in regions.items()}

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Return the item with its label maps turned into region maps."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = labels_to_regions(item[key], self.regions)
        return item


class RegionsToLabelsd(MapTransform):
    """Turn region probabilities (R, H, W, D) into label maps (1, H, W, D), `regions_to_labels`.

    Args:
        keys: keys of the probabilities.
        regions: labels of each region, in the order of the network's outputs.
        threshold: a region is on where its probability is greater than this.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        ValueError: regions that cannot be decoded into labels (see `own_labels`).
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Regions,
        threshold: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        own_labels(regions)
        self.regions = {name: list(values) for name, values in regions.items()}
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Return the item with its probabilities turned into label maps."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = regions_to_labels(item[key], self.regions, self.threshold)
        return item


def _decode(
    names: list[str], regions: Regions, own: dict[str, int], strength: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the named regions' label map and its winner's strength, -inf where none is on."""
    template = next(iter(strength.values()))
    label = torch.zeros_like(template, dtype=torch.uint8)
    best = torch.full_like(template, -torch.inf)
    for name in names:
        if any(set(regions[name]) < set(regions[other]) for other in names):
            continue  # inside another of these regions, which decodes it
        inside = [other for other in names if set(regions[other]) < set(regions[name])]
        inner, inner_best = _decode(inside, regions, own, strength)
        value = torch.where((inner == 0) & (strength[name] > -torch.inf), own[name], inner)
        highest = torch.maximum(strength[name], inner_best)
        wins = highest > best
        label, best = torch.where(wins, value, label), torch.where(wins, highest, best)
    return label, best
