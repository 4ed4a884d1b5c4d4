"""Channels and names inside MONAI's chain."""

from __future__ import annotations

import pickle

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, decollate_batch
from monai.transforms import (
    Compose,
    Invertd,
    LoadImaged,
    Orientationd,
    SaveImaged,
    Spacingd,
)

from lora_ext.data.transforms import NameAfterCased, SelectChannelsd

AFFINE = np.array([[-1.0, 0, 0, 10], [0, -1, 0, 20], [0, 0, 3, -5], [0, 0, 0, 1]])
SHAPE = (10, 9, 6)


@pytest.fixture
def path(tmp_path):
    voxels = np.random.default_rng(0).random((*SHAPE, 4), dtype=np.float32)
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "file.nii.gz")
    return str(tmp_path / "file.nii.gz")


def chain(*more, num_channels=None):
    load = LoadImaged("image", ensure_channel_first=True)
    return Compose([load, SelectChannelsd("image", num_channels), NameAfterCased("image"), *more])


def resampling(num_channels=None):
    return chain(
        Orientationd("image", axcodes="RAS", labels=None),
        Spacingd("image", pixdim=(1.5, 1.5, 1.5), mode="bilinear"),
        num_channels=num_channels,
    )


def test_channels_are_kept_in_the_order_asked_with_the_affine_of_the_file(path):
    item = chain()({"case": "B_1", "image": path, "channels": [2, 0]})
    expected = np.asarray(nib.load(path).dataobj).transpose(3, 0, 1, 2)[[2, 0]]
    assert np.array_equal(item["image"].numpy(), expected)
    assert np.array_equal(item["image"].affine.numpy(), AFFINE)
    assert "channels" not in item
    assert item["case"] == "B_1"


def test_one_file_per_channel_is_stacked_in_list_order(path, tmp_path):
    volumes = np.asarray(nib.load(path).dataobj)
    files = []
    for i in (3, 1):
        files.append(str(tmp_path / f"B_1_{i}.nii.gz"))
        nib.save(nib.Nifti1Image(volumes[..., i], AFFINE), files[-1])
    item = chain(num_channels=2)({"case": "B_1", "image": files, "channels": [0, 1]})
    assert np.array_equal(item["image"].numpy(), volumes.transpose(3, 0, 1, 2)[[3, 1]])
    assert item["image"].meta["filename_or_obj"] == "B_1.nii.gz"


def test_an_item_without_channels_or_case_stays_as_loaded(path):
    item = chain(num_channels=4)({"image": path})
    assert item["image"].shape == (4, *SHAPE)
    assert item["image"].meta["filename_or_obj"] == path


def test_an_item_of_monai_label_with_its_path_in_it_is_resampled_as_any_other(path):
    item = {"image": path, "image_path": path, "model": "brats_lora32"}
    result = resampling(num_channels=4)(item)
    assert torch.equal(result["image"], resampling(num_channels=4)({"image": path})["image"])
    assert result["image_path"] == path


def test_the_callers_image_and_item_are_not_changed(path):
    loaded = LoadImaged("image", ensure_channel_first=True)({"image": path})
    for channels in ({}, {"channels": [1]}):
        item = {"case": "B_1", "image": loaded["image"], **channels}
        NameAfterCased("image")(SelectChannelsd("image")(item))
        NameAfterCased("image")(item)
        assert item["image"].shape[0] == 4
        assert item["image"].meta["filename_or_obj"] == path
        assert "channels" in item or not channels


def test_selecting_does_not_name_and_naming_does_not_select(path):
    loaded = LoadImaged("image", ensure_channel_first=True)({"image": path})
    item = {"case": "B_1", **loaded, "channels": [2, 0]}
    selected = SelectChannelsd("image")(item)["image"]
    assert selected.meta["filename_or_obj"] == path
    named = NameAfterCased("image")(item)
    assert named["image"].meta["filename_or_obj"] == "B_1.nii.gz"
    assert torch.equal(named["image"], loaded["image"])
    assert named["channels"] == [2, 0]


def test_an_image_is_named_after_its_case_or_else_its_path_without_ending(path):
    image = LoadImaged("image", ensure_channel_first=True)({"image": path})["image"]
    item = {"image": image, "image_path": "/a/B_2.nrrd"}
    named = [NameAfterCased("image")(i)["image"] for i in (item, {**item, "case": "B_1"})]
    assert [n.meta["filename_or_obj"] for n in named] == ["B_2", "B_1.nii.gz"]


def test_plain_tensors_without_meta_data_are_left_as_they_are():
    image = torch.zeros(1, 2, 2, 2)
    assert NameAfterCased("image")({"case": "a", "image": image})["image"] is image


def test_applied_operations_before_the_selection_are_kept(path):
    image = MetaTensor(torch.zeros(4, 2, 2, 2), applied_operations=[{"class": "Flip"}])
    item = SelectChannelsd("image")({"case": "a", "image": image, "channels": [0]})
    result = NameAfterCased("image")(item)["image"]
    assert result.applied_operations == [{"class": "Flip"}]


def test_plain_tensors_are_selected_too():
    image = torch.arange(4.0).reshape(4, 1, 1, 1)
    result = SelectChannelsd("image")({"case": "a", "image": image, "channels": [3, 1]})["image"]
    assert type(result) is torch.Tensor
    assert result.flatten().tolist() == [3, 1]


@pytest.mark.parametrize(
    ("channels", "num_channels", "words"),
    [
        ({}, 2, "expected 2 channels, which the network takes, got 4"),
        ({"channels": [0]}, 2, "expected 2 channels, which the network takes, got 1"),
        ({"channels": [0, 4]}, 2, r"expected the channels \[0, 4\], got 4 channels"),
        ({"channels": [-1]}, None, r"expected the channels \[-1\], got 4 channels"),
    ],
)
def test_a_wrong_number_of_channels_names_the_file(path, channels, num_channels, words):
    loaded = LoadImaged("image", ensure_channel_first=True)({"image": path})
    select = SelectChannelsd("image", num_channels)
    with pytest.raises(ValueError, match=f"{path}: {words}"):
        select({"case": "B_1", **loaded, **channels})


def test_inverting_later_transforms_gives_the_files_grid_and_the_saved_file_is_named_by_case(
    path, tmp_path
):
    transform = resampling()
    item = transform({"case": "B_1", "image": path, "channels": [2, 0]})
    assert item["image"].shape[1:] != SHAPE
    item["pred"] = MetaTensor(item["image"].as_tensor()[:1])
    item = Invertd("pred", transform=transform, orig_keys="image")(item)
    save = SaveImaged(
        "pred", output_dir=tmp_path / "out", output_postfix="", separate_folder=False,
        resample=False, print_log=False,
    )  # fmt: skip
    save(item)
    saved = nib.load(tmp_path / "out" / "B_1.nii.gz")
    assert saved.shape == SHAPE
    assert np.allclose(saved.affine, AFFINE)


def test_inverse_of_the_whole_chain_gives_the_selected_channels_on_the_files_grid(path):
    transform = chain(Orientationd("image", axcodes="RAS", labels=None))
    item = transform({"case": "B_1", "image": path, "channels": [2, 0]})
    back = transform.inverse(item)["image"]
    expected = np.asarray(nib.load(path).dataobj).transpose(3, 0, 1, 2)[[2, 0]]
    assert np.array_equal(back.numpy(), expected)


def test_it_works_in_a_cached_batched_data_set(path):
    items = [{"case": f"B_{i}", "image": path, "channels": [i, 0]} for i in (1, 2)]
    data = CacheDataset(items, resampling(num_channels=2), progress=False)
    batch = next(iter(DataLoader(data, batch_size=2)))
    assert batch["image"].shape[:2] == (2, 2)
    assert batch["case"] == ["B_1", "B_2"]
    names = [item["image"].meta["filename_or_obj"] for item in decollate_batch(batch)]
    assert names == ["B_1.nii.gz", "B_2.nii.gz"]
    assert items[0]["channels"] == [1, 0]


def test_it_is_picklable_and_may_miss_keys():
    select = pickle.loads(pickle.dumps(SelectChannelsd("image", 2, allow_missing_keys=True)))
    assert select({"case": "a", "channels": [0]}) == {"case": "a"}
    name = pickle.loads(pickle.dumps(NameAfterCased("image", allow_missing_keys=True)))
    assert name({"case": "a"}) == {"case": "a"}
    for transform in (SelectChannelsd("image"), NameAfterCased("image")):
        with pytest.raises(KeyError):
            transform({"case": "a"})
