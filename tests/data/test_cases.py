"""Case items from a Decathlon task: its folds, few training cases, its test images."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

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
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


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
    with pytest.raises(
        ValueError, match=r"region ET: expected different labels out of \[1, 2, 3\], got \[4\]"
    ):
        fold_cases(task, ["FLAIR"], {"ET": [4]}, **FOLD)


def test_a_bad_file_is_found_in_either_part_of_the_fold(task):
    cases = fold_cases(task, ["FLAIR"], REGIONS, **FOLD)
    for part in ("training", "validation"):
        path = Path(cases[part][0]["image"])
        good = path.read_bytes()
        path.write_bytes(good[: len(good) // 2])
        with pytest.raises(ValueError, match=rf"{path.name}: .*got a damaged"):
            fold_cases(task, ["FLAIR"], REGIONS, **FOLD)
        path.write_bytes(good)


def test_labels_outside_dataset_json_are_refused_by_file(task):
    save(task / "labelsTr" / "B_3.nii.gz", value=4)
    with pytest.raises(
        ValueError,
        match=r"labelsTr/B_3\.nii\.gz: expected every label to be one of 0, 1, 2, 3, got 4",
    ):
        fold_cases(task, ["FLAIR"], REGIONS, **FOLD)


def test_the_record_makes_the_next_start_skip_the_reading(task, tmp_path):
    record = tmp_path / "checked.json"
    fold_cases(task, ["FLAIR"], REGIONS, **FOLD, record=record)
    assert len(json.loads(record.read_text(encoding="utf-8"))["passed"]) == 6
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
    write(task, json.loads((task / "dataset.json").read_text(encoding="utf-8")) | {"test": []})
    items = inference_cases(task, ["FLAIR"])
    assert names(items) == [f"B_{i}" for i in range(6)]
    assert all("label" not in item for item in items)


def test_inference_needs_no_training_images_on_disk_when_there_are_test_images(task):
    (task / "imagesTr" / "B_0.nii.gz").unlink()
    assert names(inference_cases(task, ["FLAIR"])) == ["B_9"]
    (task / "imagesTs" / "B_9.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"B_9\.nii\.gz: found no such file"):
        inference_cases(task, ["FLAIR"])


@pytest.fixture
def fold(task):
    """A function that lists a fold of six cases, four of which train, with so many of them."""

    def fold(training_cases=None):
        return fold_cases(task, ["FLAIR"], REGIONS, **FOLD, training_cases=training_cases)

    return fold


def test_fewer_training_cases_leave_the_validation_cases_alone(fold):
    one, two, four, everything = fold(1), fold(2), fold(4), fold()
    fewest, fewer, all_names = (set(names(cases["training"])) for cases in (one, two, everything))
    assert one["validation"] == two["validation"] == everything["validation"]
    assert [len(cases["training"]) for cases in (one, two, everything)] == [1, 2, 4]
    assert fewest < fewer < all_names
    assert four == everything


def test_more_training_cases_than_the_fold_has_are_refused(fold):
    with pytest.raises(ValueError, match=r"training_cases: expected 1 to 4, .*got 5"):
        fold(5)


def test_a_bad_file_of_a_training_case_that_is_not_kept_does_not_matter(fold, task):
    kept = fold(2)
    unused = set(names(fold()["training"])) - set(names(kept["training"]))
    (task / "imagesTr" / f"{unused.pop()}.nii.gz").write_bytes(b"torn")
    assert fold(2) == kept
    with pytest.raises(ValueError, match="got a damaged"):
        fold()


def test_real_brats_cases_pass_the_checks_and_load_by_channel_name(real_data, tmp_path):
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).symlink_to(real_data / name)
    content = json.loads((real_data / "dataset.json").read_text(encoding="utf-8"))
    write(tmp_path, content | {"training": content["training"][:2]})
    cases = fold_cases(tmp_path, ["t1gd"], REGIONS, fold=0, num_folds=2, split_seed=0)
    assert names(cases["training"] + cases["validation"]) == ["BRATS2013_0004", "BRATS2013_0003"]
    assert cases["training"][0]["channels"] == [1]
