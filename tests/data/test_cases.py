"""Case items from a Decathlon task's folds, and from any folder of images."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImaged

from lora_ext.data.cases import fold_cases, inference_cases

REGIONS = {"TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}
MODALITIES = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
LABELS = {"0": "background", "1": "edema", "2": "non-enhancing", "3": "enhancing"}
FOLD = {"fold": 0, "num_folds": 3, "split_seed": 0}


def save(path, channels=0, value=1):
    shape = (4, 5, 6, channels) if channels else (4, 5, 6)
    voxels = np.full(shape, value, np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])), path)


@pytest.fixture
def task(tmp_path):
    training = []
    for i in range(6):
        save(tmp_path / "imagesTr" / f"B_{i}.nii.gz", channels=4)
        save(tmp_path / "labelsTr" / f"B_{i}.nii.gz", value=i % 4)
        training.append({"image": f"./imagesTr/B_{i}.nii.gz", "label": f"./labelsTr/B_{i}.nii.gz"})
    save(tmp_path / "imagesTs" / "B_9.nii.gz", channels=4)
    content = {"modality": MODALITIES, "labels": LABELS, "training": training}
    write(tmp_path, content | {"test": ["./imagesTs/B_9.nii.gz"]})
    return tmp_path


def write(folder, content):
    (folder / "dataset.json").write_text(json.dumps(content))


def names(items):
    return [item["case"] for item in items]


def test_a_folds_items_hold_absolute_paths_and_the_channels_in_the_order_asked(task):
    cases = fold_cases(task, ["t1gd", "flair"], REGIONS, **FOLD)
    item = cases["validation"][0]
    assert item == {
        "case": item["case"],
        "image": str(task / "imagesTr" / f"{item['case']}.nii.gz"),
        "label": str(task / "labelsTr" / f"{item['case']}.nii.gz"),
        "channels": [2, 0],
    }
    assert [len(cases[key]) for key in ("training", "validation")] == [4, 2]


def test_every_labelled_case_validates_once_and_test_cases_never_leak(task):
    validated = []
    for fold in range(3):
        cases = fold_cases(task, ["FLAIR"], REGIONS, fold=fold, num_folds=3, split_seed=0)
        training, validation = names(cases["training"]), names(cases["validation"])
        assert not set(training) & set(validation)
        assert "B_9" not in training + validation
        validated += validation
    assert sorted(validated) == [f"B_{i}" for i in range(6)]


def test_regions_of_labels_that_the_data_set_lacks_are_refused(task):
    with pytest.raises(ValueError, match=r"region ET: found the labels \[4\]; .*\[1, 2, 3\]"):
        fold_cases(task, ["FLAIR"], {"ET": [4]}, **FOLD)


def test_a_bad_file_is_found_in_either_part_of_the_fold(task):
    cases = fold_cases(task, ["FLAIR"], REGIONS, **FOLD)
    for part in ("training", "validation"):
        path = Path(cases[part][0]["image"])
        good = path.read_bytes()
        path.write_bytes(good[: len(good) // 2])
        with pytest.raises(ValueError, match=rf"{path.name}: found a damaged"):
            fold_cases(task, ["FLAIR"], REGIONS, **FOLD)
        path.write_bytes(good)


def test_labels_outside_dataset_json_are_refused_by_file(task):
    save(task / "labelsTr" / "B_3.nii.gz", value=4)
    with pytest.raises(ValueError, match=r"labelsTr/B_3\.nii\.gz: found the label values 4"):
        fold_cases(task, ["FLAIR"], REGIONS, **FOLD)


def test_the_record_makes_the_next_start_skip_the_reading(task, tmp_path):
    record = tmp_path / "checked.json"
    fold_cases(task, ["FLAIR"], REGIONS, **FOLD, record=record)
    assert len(json.loads(record.read_text())["passed"]) == 6
    # Damage that leaves size and time as they were shows that the file is not read again.
    path = task / "imagesTr" / "B_1.nii.gz"
    stat = path.stat()
    path.write_bytes(b"\0" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    fold_cases(task, ["t1gd"], REGIONS, **FOLD, record=record)


def test_inference_on_a_task_takes_its_test_images(task):
    assert inference_cases(task, ["T2w", "T1w"]) == [
        {"case": "B_9", "image": str(task / "imagesTs" / "B_9.nii.gz"), "channels": [3, 1]}
    ]


def test_inference_on_a_task_without_test_images_takes_the_training_images_without_labels(task):
    write(task, json.loads((task / "dataset.json").read_text()) | {"test": []})
    items = inference_cases(task, ["FLAIR"])
    assert names(items) == [f"B_{i}" for i in range(6)]
    assert all("label" not in item for item in items)


def test_inference_needs_no_training_images_on_disk_when_there_are_test_images(task):
    (task / "imagesTr" / "B_0.nii.gz").unlink()
    assert names(inference_cases(task, ["FLAIR"])) == ["B_9"]
    (task / "imagesTs" / "B_9.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"B_9\.nii\.gz: found no such file"):
        inference_cases(task, ["FLAIR"])


def test_a_folder_of_4d_files_is_one_case_per_file(tmp_path):
    save(tmp_path / "b_1.nii.gz", channels=2)
    save(tmp_path / "a.nii", channels=2)
    save(tmp_path / "deeper" / "c.nii.gz", channels=2)
    (tmp_path / "._b_1.nii.gz").write_bytes(b"macOS")
    (tmp_path / "notes.txt").touch()
    assert inference_cases(tmp_path, ["FLAIR", "t1gd"]) == [
        {"case": "a", "image": str(tmp_path / "a.nii"), "channels": [0, 1]},
        {"case": "b_1", "image": str(tmp_path / "b_1.nii.gz"), "channels": [0, 1]},
    ]
    with pytest.raises(ValueError, match=r"a\.nii: found 2 channels; .* 3 \(FLAIR, t1gd, T2w\)"):
        inference_cases(tmp_path, ["FLAIR", "t1gd", "T2w"])


def test_one_file_per_channel_is_put_in_the_order_of_the_modalities(tmp_path):
    for name in ("pat_01_T1GD", "pat_01_flair", "pat_02_t1gd", "pat_02_FLAIR"):
        save(tmp_path / f"{name}.nii.gz")
    items = inference_cases(tmp_path, ["FLAIR", "t1gd"])
    assert names(items) == ["pat_01", "pat_02"]
    assert items[0] == {
        "case": "pat_01",
        "image": [str(tmp_path / f"pat_01_{name}.nii.gz") for name in ("flair", "T1GD")],
        "channels": [0, 1],
    }


def test_the_longest_modality_that_fits_names_the_channel(tmp_path):
    for name in ("a_T1", "a_ce_T1", "b_T1", "b_ce_T1"):
        save(tmp_path / f"{name}.nii.gz")
    items = inference_cases(tmp_path, ["T1", "ce_T1"])
    assert names(items) == ["a", "b"]
    assert [Path(path).name for path in items[0]["image"]] == ["a_T1.nii.gz", "a_ce_T1.nii.gz"]


def test_a_missing_channel_names_the_case_the_modality_and_the_expected_file(tmp_path):
    for name in ("a_FLAIR", "a_t1gd", "b_FLAIR"):
        save(tmp_path / f"{name}.nii.gz")
    words = r"found no t1gd file of case b; allowed is b_t1gd\.nii\.gz"
    with pytest.raises(ValueError, match=words):
        inference_cases(tmp_path, ["FLAIR", "t1gd"])


def test_other_sequences_and_segmentations_of_known_cases_are_ignored_and_logged(tmp_path, caplog):
    for name in ("a_FLAIR", "a_t1gd", "a_T2w", "a_seg"):
        save(tmp_path / f"{name}.nii.gz")
    with caplog.at_level(logging.INFO):
        assert names(inference_cases(tmp_path, ["FLAIR", "t1gd"])) == ["a"]
    assert all(f"{name}.nii.gz: ignored" in caplog.text for name in ("a_T2w", "a_seg"))


@pytest.mark.parametrize("name", ["other", "ab_T2w", "_FLAIR", "FLAIR"])
def test_any_other_single_channel_file_is_refused_by_name(tmp_path, name):
    for known in ("a_FLAIR", "a_t1gd", name):
        save(tmp_path / f"{known}.nii.gz")
    with pytest.raises(ValueError, match=rf"/{name}\.nii\.gz: found a single channel"):
        inference_cases(tmp_path, ["FLAIR", "t1gd"])


@pytest.mark.parametrize(
    ("files", "modalities"),
    [
        ({"a_FLAIR.nii.gz": 0, "a_flair.nii": 0, "a_t1gd.nii": 0}, ["FLAIR", "t1gd"]),
        ({"a.nii.gz": 2, "a.nii": 2}, ["FLAIR", "t1gd"]),
        ({"a.nii.gz": 2, "a_FLAIR.nii": 0, "a_t1gd.nii": 0}, ["FLAIR", "t1gd"]),
        ({"a.nii.gz": 0, "a_T2.nii.gz": 0}, ["T2"]),
    ],
)
def test_two_files_for_one_channel_of_a_case_are_refused(tmp_path, files, modalities):
    for name, channels in files.items():
        save(tmp_path / name, channels=channels)
    with pytest.raises(ValueError, match="found a second"):
        inference_cases(tmp_path, modalities)


def test_with_one_modality_a_3d_file_is_a_case_of_its_own(tmp_path):
    for name in ("p_1", "p_1_2", "q_T2", "q_seg"):
        save(tmp_path / f"{name}.nii.gz")
    items = inference_cases(tmp_path, ["T2"])
    assert names(items) == ["p_1", "p_1_2", "q"]
    assert items[2]["image"] == str(tmp_path / "q_T2.nii.gz")
    assert LoadImaged("image", ensure_channel_first=True)(items[0])["image"].shape == (1, 4, 5, 6)


def test_an_empty_folder_a_missing_one_and_a_damaged_image_are_refused(tmp_path):
    (tmp_path / "._a.nii.gz").touch()
    with pytest.raises(ValueError, match="found no image"):
        inference_cases(tmp_path, ["FLAIR"])
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(ValueError, match=r"a\.nii\.gz: found a damaged"):
        inference_cases(tmp_path, ["FLAIR"])
    with pytest.raises(ValueError, match="found no such folder"):
        inference_cases(tmp_path / "nowhere", ["FLAIR"])


@pytest.mark.parametrize("modalities", [[], "FLAIR", ["FLAIR", "flair"]])
def test_modalities_must_be_different_names(tmp_path, modalities):
    save(tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=re.escape(f"modalities: found {modalities!r}")):
        inference_cases(tmp_path, modalities)


def real_task():
    here = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("LORA_EXT_REAL_DATA", here)) / "Task01_BRATS2013"
    if not (folder / "dataset.json").is_file():
        pytest.skip("real BraTS 2013 cases not found; set LORA_EXT_REAL_DATA to their folder")
    return folder


def test_real_brats_cases_pass_the_checks_and_load_by_channel_name(tmp_path):
    folder = tmp_path / "task"
    folder.mkdir()
    real = real_task()
    for name in ("imagesTr", "labelsTr"):
        (folder / name).symlink_to(real / name)
    content = json.loads((real / "dataset.json").read_text())
    write(folder, content | {"training": content["training"][:2]})
    cases = fold_cases(folder, ["t1gd"], REGIONS, fold=0, num_folds=2, split_seed=0)
    assert names(cases["training"] + cases["validation"]) == ["BRATS2013_0004", "BRATS2013_0003"]
    assert cases["training"][0]["channels"] == [1]
