"""Regions and labels: the Decathlon's label values, and the way there and back."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ConvertToMultiChannelBasedOnBratsClassesd

from lora_ext.data.regions import (
    LabelsToRegionsd,
    RegionsToLabelsd,
    check_regions,
    labels_to_regions,
    own_labels,
    regions_to_labels,
)

BRATS = {"TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}
PROSTATE = {"PZ": [1], "TZ": [2]}


def voxels(values):
    return torch.tensor(values).reshape(1, -1, 1, 1)


def probabilities(*regions):
    return torch.tensor(regions).reshape(len(regions), -1, 1, 1)


def test_brats_regions_follow_task01_labels_voxel_by_voxel():
    maps = labels_to_regions(voxels([0, 1, 2, 3]), BRATS).flatten(1)
    assert maps.tolist() == [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]
    assert maps.dtype == torch.float32


def test_monais_brats_classes_differ_on_the_same_labels():
    label = voxels([0, 1, 2, 3])
    ours = labels_to_regions(label, BRATS).bool()
    for et_label in (3, 4):
        transform = ConvertToMultiChannelBasedOnBratsClassesd("label", et_label=et_label)
        assert not torch.equal(transform({"label": label})["label"], ours)


@pytest.mark.parametrize("regions", [BRATS, PROSTATE], ids=["brats", "prostate"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_labels_to_regions_to_labels_is_the_identity(regions, dtype):
    num_labels = 1 + max(max(labels) for labels in regions.values())
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, num_labels, (1, 7, 6, 5), generator=generator).to(dtype)
    assert set(label.unique().tolist()) == set(range(num_labels))
    back = regions_to_labels(labels_to_regions(label, regions), regions)
    assert back.dtype == torch.uint8
    assert torch.equal(back.to(dtype), label)


@pytest.mark.parametrize("order", list(itertools.permutations(BRATS)))
def test_the_order_of_nested_regions_does_not_change_the_label_map(order):
    regions = {name: BRATS[name] for name in order}
    p = torch.rand(3, 5, 5, 5, generator=torch.Generator().manual_seed(1))
    expected = regions_to_labels(p, BRATS)
    shuffled = torch.stack([p[list(BRATS).index(name)] for name in order])
    assert torch.equal(regions_to_labels(shuffled, regions), expected)


def test_brats_decodes_as_painting_from_the_whole_tumour_inwards():
    p = torch.rand(3, 8, 8, 8, generator=torch.Generator().manual_seed(2)).numpy()
    painted = np.zeros(p.shape[1:], np.uint8)
    painted[p[1] > 0.5] = 1
    painted[p[0] > 0.5] = 2
    painted[p[2] > 0.5] = 3
    assert np.array_equal(regions_to_labels(torch.from_numpy(p), BRATS)[0].numpy(), painted)


def test_prostate_zones_compete_by_probability_and_the_first_wins_a_tie():
    p = probabilities([0.9, 0.6, 0.7, 0.2, 0.4], [0.6, 0.8, 0.7, 0.6, 0.3])
    assert regions_to_labels(p, PROSTATE).flatten().tolist() == [1, 2, 1, 2, 0]


def test_a_region_competes_with_the_highest_probability_inside_it():
    regions = {"lobe": [1, 2], "lesion": [2], "vessel": [3]}
    p = probabilities([0.6, 0.6, 0.0], [0.9, 0.7, 0.9], [0.8, 0.8, 0.95])
    assert regions_to_labels(p, regions).flatten().tolist() == [2, 3, 3]


def test_a_region_is_on_only_above_the_threshold():
    p = probabilities([0.5, 0.51, float("nan")], [0.0, 0.0, 0.0])
    assert regions_to_labels(p, PROSTATE).flatten().tolist() == [0, 1, 0]
    assert regions_to_labels(p, PROSTATE, threshold=0.6).flatten().tolist() == [0, 0, 0]


def test_labels_in_no_region_are_background():
    regions = {"PZ": [1]}
    maps = labels_to_regions(voxels([0, 1, 2]), regions)
    assert maps.flatten().tolist() == [0, 1, 0]
    assert regions_to_labels(maps, regions).flatten().tolist() == [0, 1, 0]


@pytest.mark.parametrize("value", [1.4, 1.6])
def test_label_between_whole_numbers_is_refused(value):
    with pytest.raises(ValueError, match="expected every label to be an integer, got 1"):
        labels_to_regions(voxels([0.0, value, 2.0]), PROSTATE)


def test_label_beyond_a_byte_is_refused():
    LabelsToRegionsd("label", {"A": [255]})
    with pytest.raises(ValueError, match=r"got \[256\]"):
        LabelsToRegionsd("label", {"A": [256]})


def test_own_labels_are_those_of_no_inner_region():
    assert own_labels(BRATS) == {"TC": 2, "WT": 1, "ET": 3}
    assert own_labels(PROSTATE) == {"PZ": 1, "TZ": 2}


@pytest.mark.parametrize(
    ("regions", "words"),
    [
        ({"A": [1, 2]}, "region A .*expected one label .*got 2"),
        ({"A": [1, 2], "B": [1], "C": [2]}, "region A .*expected one label .*got 0"),
        ({"A": [1], "B": [1]}, "region A .*expected one label .*got 0"),
        ({"A": [1, 2], "B": [2, 3]}, "regions A .* and B .*partial overlap"),
        ({"A": [256]}, r"region A: expected different labels .*got \[256\]"),
        ({"A": []}, r"region A: expected different labels .*got \[\]"),
        ({}, "got none"),
    ],
)
def test_regions_that_cannot_be_decoded_are_refused_at_construction(regions, words):
    with pytest.raises(ValueError, match=words):
        RegionsToLabelsd("pred", regions)


def test_check_regions_names_the_region_and_the_labels_allowed():
    check_regions(BRATS, [0, 1, 2, 3])
    with pytest.raises(
        ValueError, match=r"region TC: expected different labels out of \[1, 2\], got \[2, 3\]"
    ):
        check_regions(BRATS, [0, 1, 2])
    with pytest.raises(ValueError, match=r"region A: expected .*got \[0, 1\]"):
        check_regions({"A": [0, 1]}, [0, 1, 2])
    with pytest.raises(ValueError, match=r"region A: expected .*got \[1, 1\]"):
        check_regions({"A": [1, 1]}, [0, 1, 2])


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="expected 1 channel, got 2"):
        labels_to_regions(torch.zeros(2, 1, 1, 1), BRATS)
    with pytest.raises(ValueError, match=r"expected 3 maps \(TC, WT, ET\), got 2"):
        regions_to_labels(torch.zeros(2, 1, 1, 1), BRATS)


def test_meta_data_and_applied_operations_are_kept_both_ways():
    affine = torch.diag(torch.tensor([-1.0, -1.0, 3.0, 1.0], dtype=torch.float64))
    label = MetaTensor(
        voxels([0.0, 1, 2]), affine=affine, meta={"filename_or_obj": "a"},
        applied_operations=[{"class": "Flip"}],
    )  # fmt: skip
    maps = LabelsToRegionsd("label", PROSTATE)({"label": label})["label"]
    back = RegionsToLabelsd("label", PROSTATE)({"label": maps})["label"]
    for result in (maps, back):
        assert isinstance(result, MetaTensor)
        assert torch.equal(result.affine, affine)
        assert result.meta["filename_or_obj"] == "a"
        assert result.applied_operations == label.applied_operations
    assert back.as_tensor().flatten().tolist() == [0, 1, 2]


def test_plain_tensors_stay_plain_and_items_are_not_changed_in_place():
    item = {"label": voxels([0, 1, 2]), "case": "a"}
    result = LabelsToRegionsd("label", PROSTATE)(item)
    assert type(result["label"]) is torch.Tensor
    assert item["label"].shape == (1, 3, 1, 1)
    assert result["case"] == "a"


def test_half_precision_and_integer_masks_decode():
    p = probabilities([0.9, 0.1], [0.2, 0.8])
    for converted in (p.half(), (p > 0.5).to(torch.uint8)):
        assert regions_to_labels(converted, PROSTATE).flatten().tolist() == [1, 2]


def test_missing_keys_and_pickling_work_as_in_monai():
    transform = pickle.loads(pickle.dumps(LabelsToRegionsd("label", BRATS, True)))
    assert transform({"case": "a"}) == {"case": "a"}
    with pytest.raises(KeyError):
        RegionsToLabelsd("pred", BRATS)({"case": "a"})
