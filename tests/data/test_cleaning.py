"""Stray parts of predicted regions, counted by ITK in the label map that comes of it."""

from __future__ import annotations

import itk
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from lora_ext.data import CleanRegionsd, RegionsToLabelsd

NESTED = {"TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}
APART = {"PZ": [1], "TZ": [2]}
VOXEL_ML = 2.0 * 2.5 * 4.0 / 1000
ANGLE = np.deg2rad(30)
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, -1]])


def noise(regions, seed=0):
    """Smooth random probabilities with many parts in each region, on an oblique grid."""
    draw = torch.Generator().manual_seed(seed)
    coarse = (torch.rand(1, len(regions), 9, 8, 7, generator=draw) - 0.2).clamp(min=0)
    maps = torch.nn.functional.interpolate(coarse, (36, 32, 28), mode="trilinear")[0]
    affine = np.eye(4)
    affine[:3, :3] = TURN * [2.0, 2.5, 4.0]
    return MetaTensor(maps, affine=torch.from_numpy(affine))


def labels(maps, regions, **options):
    item = CleanRegionsd("pred", regions, **options)({"pred": maps.clone()})
    return RegionsToLabelsd("pred", regions)(item)["pred"][0].numpy()


def parts(mask):
    """Sizes in voxels of a mask's parts, by ITK."""
    image = itk.image_from_array(mask.astype(np.uint8))
    found = itk.array_from_image(itk.connected_component_image_filter(image, fully_connected=True))
    return sorted(np.bincount(found.ravel())[1:].tolist(), reverse=True)


def of(label_map, regions):
    return {name: np.isin(label_map, values) for name, values in regions.items()}


def test_without_a_choice_nothing_is_touched():
    maps = noise(NESTED)
    assert CleanRegionsd("pred", NESTED)({"pred": maps})["pred"] is maps


@pytest.mark.parametrize("seed", range(3))
def test_nested_regions_of_the_label_map_have_one_part_each(seed):
    maps = noise(NESTED, seed)
    before = of(labels(maps, NESTED), NESTED)
    assert min(len(parts(mask)) for mask in before.values()) > 1
    after = of(labels(maps, NESTED, largest_component=True), NESTED)
    assert [len(parts(mask)) for mask in after.values()] == [1, 1, 1]
    assert parts(after["WT"]) == parts(before["WT"])[:1]
    assert all((after[name] <= before[name]).all() for name in NESTED)


def test_what_an_inner_region_loses_stays_in_the_outer_one():
    maps = noise(NESTED)
    before, after = (
        of(labels(maps, NESTED, largest_component=names), NESTED) for names in ([], ["ET"])
    )
    assert parts(after["ET"]) == parts(before["ET"])[:1]
    assert (after["WT"] == before["WT"]).all()
    assert (after["TC"] == before["TC"]).all()


@pytest.mark.parametrize("regions", [NESTED, APART], ids=["nested", "apart"])
def test_parts_below_the_volume_go_and_all_others_stay(regions):
    maps = noise(regions)
    first = next(iter(regions))
    plain = (maps[list(regions).index(first)] > 0.5).numpy()
    if regions is NESTED:
        plain |= (maps[2] > 0.5).numpy()  # ET is a part of TC
    sizes = parts(plain)
    limit = sizes[len(sizes) // 2]
    cleaned = CleanRegionsd("pred", regions, min_volume={first: limit * VOXEL_ML})
    after = cleaned({"pred": maps.clone()})["pred"]
    kept = (after[list(regions).index(first)] > 0.5).numpy()
    assert parts(kept) == [size for size in sizes if size >= limit]
    assert len(parts(kept)) < len(sizes)
    assert (kept <= plain).all()


def test_probabilities_of_what_stays_are_as_they_were():
    maps = noise(APART)
    after = CleanRegionsd("pred", APART, largest_component=True, min_volume=0.1)({"pred": maps})
    found = after["pred"]
    gone = found != maps
    assert (maps[gone] > 0.5).all()
    assert (found[gone] == 0).all()
    assert isinstance(found, MetaTensor)
    assert torch.equal(found.affine, maps.affine)


def test_empty_regions_stay_empty():
    maps = MetaTensor(torch.zeros(2, 4, 4, 4))
    assert not labels(maps, APART, largest_component=True, min_volume=1.0).any()


def test_names_that_are_no_regions_are_refused():
    with pytest.raises(ValueError, match=r"expected names of \['PZ', 'TZ'\], got \['CZ'\]"):
        CleanRegionsd("pred", APART, largest_component=["CZ"])
    with pytest.raises(ValueError, match="expected probabilities as a MetaTensor"):
        CleanRegionsd("pred", APART, min_volume=1.0)({"pred": torch.zeros(2, 4, 4, 4)})
