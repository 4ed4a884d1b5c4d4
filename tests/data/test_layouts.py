"""One phantom in every layout: the same tensors, folds and volumes, by `read_task`'s readers."""

from __future__ import annotations

import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged

from lora_ext.data import PlaceLabeld, SelectChannelsd, fold_cases, fold_volumes, inference_cases
from lora_ext.images import VolumeReader
from lora_ext.phantoms import write_phantoms

MODALITIES = ["T2w", "FLAIR", "t1gd", "T1w"]  # not in the order of the files
FILES = ["FLAIR", "T1w", "t1gd", "T2w"]
REGIONS = {"TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}
FOLD = {"fold": 1, "num_folds": 3, "split_seed": 4}
CASES = 5


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "task"
    return write_phantoms("brats", folder, cases=CASES, size=(16, 16, 16), test_cases=0)


@pytest.fixture
def volumes(phantom):
    """Image (H, W, D, C), label map and affine of each case."""
    read = []
    for number in range(1, CASES + 1):
        image = nib.load(phantom / "imagesTr" / f"brats_{number:04d}.nii.gz")
        label = nib.load(phantom / "labelsTr" / f"brats_{number:04d}.nii.gz")
        read.append((np.asarray(image.dataobj), np.asarray(label.dataobj), image.affine))
    return read


def decathlon_nrrd(folder, volumes, write):
    entries = []
    for i, (image, label, affine) in enumerate(volumes):
        write(folder / "imagesTr" / f"c{i}.nrrd", image, affine)
        write(folder / "labelsTr" / f"c{i}.nrrd", label, affine)
        entries.append({"image": f"imagesTr/c{i}.nrrd", "label": f"labelsTr/c{i}.nrrd"})
    labels = {"0": "background", "1": "edema", "2": "core", "3": "enhancing"}
    channels = {str(c): name for c, name in enumerate(FILES)}
    put(folder / "dataset.json", {"modality": channels, "labels": labels, "training": entries})
    return folder


def nnunet(folder, volumes, write):
    for i, (image, label, affine) in enumerate(volumes):
        for c in range(4):
            write(folder / "imagesTr" / f"c_{i}_{c:04d}.nii.gz", image[..., c], affine)
        write(folder / "labelsTr" / f"c_{i}.nii.gz", label, affine)
    (folder / "imagesTr" / "._c_0_0000.nii.gz").touch()
    names = {"0": "FLAIR", "1": "T1w", "2": "T1w-Gd", "3": "T2w"}
    regions = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing": [3]}
    content = {"channel_names": names, "labels": regions, "regions_class_order": [1, 2, 3]}
    put(folder / "dataset.json", {**content, "numTraining": CASES, "file_ending": ".nii.gz"})
    return folder


def datalist(folder, volumes, write):
    """Files that say nothing in themselves, channels in the order asked; the list is the flag."""
    entries = []
    for i, (image, label, affine) in enumerate(volumes):
        parts = [image[..., FILES.index(name)] for name in MODALITIES]
        files = [f"store/case{i}/{c}.nii.gz" for c in range(4)]
        for name, part in zip(files, parts, strict=True):
            write(folder / name, part, affine)
        write(folder / f"truth/{i}.nii.gz", label, affine)
        entries.append({"image": files, "label": f"truth/{i}.nii.gz"})
    put(folder / "my list.json", {"training": entries})
    return folder / "my list.json"


def named_datalist(folder, volumes, write):
    entries = []
    for i, (image, label, affine) in enumerate(volumes):
        names = [f"c{i}_{name}.nii.gz" for name in ("t2f", "t1n", "t1c", "t2w")]
        for c, name in enumerate(names):
            write(folder / name, image[..., c], affine)
        write(folder / f"c{i}_seg.nii.gz", label, affine)
        entries.append({"image": names[::-1], "label": f"c{i}_seg.nii.gz"})
    put(folder / "datalist.json", {"training": entries})
    return folder


def case_folders(case, names, joint):
    def write_all(folder, volumes, write):
        for i, (image, label, affine) in enumerate(volumes):
            own = case.format(i)
            for c, name in enumerate(names):
                write(folder / own / f"{own}{joint}{name}.nii.gz", image[..., c], affine)
            write(folder / own / f"{own}{joint}seg.nii.gz", label, affine)
            (folder / own / f"._{own}{joint}seg.nii.gz").touch()
        return folder

    return write_all


def flat(folder, volumes, write):
    for i, (image, label, affine) in enumerate(volumes):
        for c, name in enumerate(FILES):
            write(folder / f"c{i}_{name}.nii.gz", image[..., c], affine)
        write(folder / f"c{i}_seg.nii.gz", label, affine)
    return folder


def itk_channels(folder, volumes, write):
    """As ITK and ANTs write channels, (H, W, D, 1, C), beside label maps in one folder."""
    for i, (image, label, affine) in enumerate(volumes):
        turned = image[..., [FILES.index(name) for name in MODALITIES]]
        write(folder / f"c{i}.nii.gz", turned[:, :, :, None], affine)
        write(folder / f"c{i}_label.nii.gz", label, affine)
    return folder


def put(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")


LAYOUTS = {
    "NRRD": decathlon_nrrd,
    "nnU-Net": nnunet,
    "datalist": datalist,
    "datalist by name": named_datalist,
    "BraTS 2021": case_folders("BraTS2021_{:05d}", ["flair", "t1", "t1ce", "t2"], "_"),
    "BraTS 2023": case_folders("BraTS-GLI-{:05d}-000", ["t2f", "t1n", "t1c", "t2w"], "-"),
    "flat": flat,
    "5D": itk_channels,
}


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path, volumes, write_image):
    return LAYOUTS[request.param](tmp_path, volumes, write_image)


def tensors(items):
    """Images (C, H, W, D) and label maps, as the bundles load them."""
    keys = [key for key in ("image", "label") if key in items[0]]
    load = Compose(
        [
            LoadImaged(keys, reader=VolumeReader(), image_only=True, ensure_channel_first=True),
            PlaceLabeld(keys),
            SelectChannelsd("image"),
        ]
    )
    return [[load(item)[key] for key in keys] for item in items]


def assert_equal(found, expected):
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.as_tensor(), other.as_tensor())
            assert np.allclose(one.affine, other.affine, atol=1e-5)


def test_a_fold_has_the_same_tensors_in_every_layout(phantom, layout):
    expected = fold_cases(phantom, MODALITIES, REGIONS, **FOLD)
    found = fold_cases(layout, MODALITIES, REGIONS, **FOLD)
    for part in ("training", "validation"):
        assert_equal(tensors(found[part]), tensors(expected[part]))


@pytest.mark.parametrize("name", ["nnU-Net", "BraTS 2023", "datalist by name"])
def test_two_of_four_files_make_two_channels(phantom, tmp_path, volumes, write_image, name):
    folder = LAYOUTS[name](tmp_path, volumes, write_image)
    found, expected = (
        fold_cases(place, ["t1gd", "T2w"], REGIONS, **FOLD)["validation"]
        for place in (folder, phantom)
    )
    assert [len(item["image"]) for item in found] == [2, 2]
    assert_equal(tensors(found), tensors(expected))


def test_inference_sees_the_same_images_and_no_label_map_in_every_layout(phantom, layout):
    found, expected = (inference_cases(place, MODALITIES) for place in (layout, phantom))
    assert_equal(tensors(found), tensors(expected))


def test_pre_training_splits_the_same_volumes_in_every_layout(phantom, layout):
    found, expected = (fold_volumes(place, **FOLD) for place in (layout, phantom))
    for part in ("training", "validation"):
        sums = [
            sorted(
                float(image.as_tensor().double().square().sum())
                for (image,) in tensors(sides[part])
            )
            for sides in (found, expected)
        ]
        assert len(sums[0]) == len(expected[part]) > 0
        assert sums[0] == sums[1]


def test_folds_of_a_list_are_used_and_told(phantom, tmp_path, caplog):
    content = json.loads((phantom / "dataset.json").read_text(encoding="utf-8"))
    entries = [
        {**{key: str(phantom / path) for key, path in entry.items()}, "fold": number % 2}
        for number, entry in enumerate(content["training"])
    ]
    put(tmp_path / "datalist.json", {"training": entries, "testing": []})
    with caplog.at_level(logging.INFO):
        cases = fold_cases(tmp_path, FILES, REGIONS, **FOLD)
    assert [item["case"] for item in cases["validation"]] == ["brats_0002", "brats_0004"]
    assert "fold 1 of 0, 1 validates (2 of 5 cases)" in caplog.text
    volumes = fold_volumes(tmp_path, **FOLD)["validation"]
    assert {item["case"].rpartition("_")[0] for item in volumes} == {"brats_0002", "brats_0004"}
    with pytest.raises(ValueError, match="fold: expected one of 0, 1, which the data set gives"):
        fold_cases(tmp_path, FILES, REGIONS, fold=2, num_folds=3, split_seed=0)
    entries[0].pop("fold")
    put(tmp_path / "datalist.json", {"training": entries})
    with pytest.raises(ValueError, match="expected a fold for every training entry or for none"):
        fold_cases(tmp_path, FILES, REGIONS, **FOLD)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nnU-Net", "t1gd is T1w-Gd"),
        ("BraTS 2023", "FLAIR is t2f, t1gd is t1c"),
        ("datalist by name", "FLAIR is t2f, t1gd is t1c"),
    ],
)
def test_channels_by_other_names_are_told_in_one_line(
    tmp_path, volumes, write_image, caplog, name, words
):
    folder = LAYOUTS[name](tmp_path, volumes, write_image)
    with caplog.at_level(logging.INFO):
        inference_cases(folder, ["t1gd", "FLAIR"])
    assert f"channels by other names: {words}\n" in caplog.text
    assert caplog.text.count("other names") == 1


def test_labels_of_brats_that_do_not_fit_the_regions_name_the_flag(
    tmp_path, volumes, write_image, caplog
):
    old, new = tmp_path / "2021", tmp_path / "2023"
    swapped = [(image, label[..., :] * 1, affine) for image, label, affine in volumes]
    for _, label, _ in swapped:
        label[label == 3] = 4
    LAYOUTS["BraTS 2021"](old, swapped, write_image)
    words = (
        r"got label maps with 1, 2, 4; pass --regions \"{'TC':\[1,4\],'WT':\[1,2,4\],'ET':\[4\]}\""
    )
    with pytest.raises(ValueError, match=words):
        fold_cases(old, MODALITIES, REGIONS, **FOLD)
    own = {"TC": [1, 4], "WT": [1, 2, 4], "ET": [4]}
    fold_cases(old, MODALITIES, own, **FOLD)
    assert "BraTS" not in caplog.text
    LAYOUTS["BraTS 2023"](new, volumes, write_image)
    fold_cases(new, MODALITIES, REGIONS, **FOLD)
    assert "unless the labels were changed, pass --regions \"{'TC':[1,3]" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda d: (d / "imagesTr/c_1_0002.nii.gz").unlink(),
            r"channels 0 to 3 of case c_1, .*got 0, 1, 3",
        ),
        (
            lambda d: (d / "labelsTr/c_1.nii.gz").unlink(),
            r"labelsTr/c_1\.nii\.gz: found no such file",
        ),
        (
            lambda d: (d / "imagesTr/x.nii.gz").touch(),
            r"x\.nii\.gz: expected the name <case>_0000\.nii",
        ),
        (lambda d: edit(d, file_ending=".png"), r"expected a file_ending out of .*got '\.png'"),
        (lambda d: edit(d, labels={"background": 0, "a": "1"}), "expected labels as name: value"),
        (lambda d: edit(d, labels={"tumour": 1}), "expected labels as name: value"),
        (lambda d: edit(d, channel_names={"0": "FLAIR", "2": "T2"}), "channel_names keys 0, 1"),
    ],
)
def test_faults_of_an_nnunet_data_set_are_named(tmp_path, volumes, write_image, change, words):
    folder = LAYOUTS["nnU-Net"](tmp_path, volumes[:3], write_image)
    change(folder)
    with pytest.raises(ValueError, match=words):
        fold_cases(folder, MODALITIES, REGIONS, **FOLD)


def edit(folder, **keys):
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    put(folder / "dataset.json", content | keys)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda d: (d / "c1_T1w.nii.gz").unlink(),
            r"found no T1w file of case c1; expected c1_T1w",
        ),
        (
            lambda d: [p.unlink() for p in d.glob("*_seg*")],
            r"expected cases with a label map .*<case>_seg .*got none",
        ),
        (
            lambda d: (d / "x_seg.nii.gz").touch(),
            r"got .*x_seg\.nii\.gz without an image of case x",
        ),
    ],
)
def test_faults_of_a_folder_to_train_on_are_named(tmp_path, volumes, write_image, change, words):
    folder = LAYOUTS["flat"](tmp_path, volumes[:3], write_image)
    change(folder)
    with pytest.raises(ValueError, match=words):
        fold_cases(folder, FILES, REGIONS, **FOLD)
