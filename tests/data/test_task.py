"""A task folder's dataset.json: channels by name, and every way it can be wrong."""

from __future__ import annotations

import copy
import json
import re

import pytest

from lora_ext.data.task import read_task

BRATS = {
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing", "3": "enhancing"},
    "training": [
        {"image": f"./imagesTr/B_{i}.nii.gz", "label": f"./labelsTr/B_{i}.nii.gz"} for i in (1, 2)
    ],
    "test": ["./imagesTs/B_3.nii.gz"],
}


@pytest.fixture
def folder(tmp_path):
    for name in ("imagesTr/B_1", "imagesTr/B_2", "labelsTr/B_1", "labelsTr/B_2", "imagesTs/B_3"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    write(tmp_path, BRATS)
    return tmp_path


def write(folder, content):
    (folder / "dataset.json").write_text(
        content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
    )


def changed(**keys):
    return copy.deepcopy(BRATS) | keys


def test_a_task_lists_channels_labels_and_absolute_paths(folder):
    task = read_task(folder)
    assert task.channels == ("FLAIR", "T1w", "t1gd", "T2w")
    assert task.labels == {0: "background", 1: "edema", 2: "non-enhancing", 3: "enhancing"}
    assert [case.name for case in task.training] == ["B_1", "B_2"]
    assert task.training[0].image == folder / "imagesTr" / "B_1.nii.gz"
    assert task.training[0].label == folder / "labelsTr" / "B_1.nii.gz"
    assert [(case.name, case.label) for case in task.test] == [("B_3", None)]


def test_a_relative_folder_gives_absolute_paths(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert read_task(folder.name).training[0].image == folder / "imagesTr" / "B_1.nii.gz"


def test_a_task_without_a_test_list_has_no_test_cases(folder):
    write(folder, {key: value for key, value in BRATS.items() if key != "test"})
    assert read_task(folder).test == ()


@pytest.mark.parametrize(
    ("modalities", "indices"),
    [
        (["FLAIR", "T1w", "t1gd", "T2w"], [0, 1, 2, 3]),
        (["t1gd", "FLAIR"], [2, 0]),
        (["flair", "T1GD"], [0, 2]),
        (("t2W",), [3]),
    ],
)
def test_channels_are_found_by_name_in_any_case_and_in_the_order_asked(folder, modalities, indices):
    assert read_task(folder).channel_indices(modalities) == indices


def test_the_channel_follows_its_name_when_the_file_order_changes(folder):
    write(folder, changed(modality={"1": "FLAIR", "0": "t1gd"}))
    assert read_task(folder).channel_indices(["FLAIR", "t1gd"]) == [1, 0]


@pytest.mark.parametrize(
    ("modalities", "words"),
    [
        (["FLAIR", "PET"], "modality 'PET' is not in"),
        (["FLAIR", "flair"], "got 'FLAIR' twice"),
        ([], "got []"),
        ("FLAIR", "got 'FLAIR'"),
    ],
)
def test_a_wrong_modality_is_refused_with_the_names_available(folder, modalities, words):
    with pytest.raises(ValueError, match=rf"(?s)(?=.*{re.escape(words)}).*FLAIR, T1w, t1gd, T2w"):
        read_task(folder).channel_indices(modalities)


def case(image, label="labelsTr/B_1.nii.gz"):
    return {"image": image, "label": label}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{'modality': 1}", "expected valid JSON"),
        ("[]", "expected a JSON object, got a list"),
        ({}, "or a datalist (training, validation, testing), got the keys none"),
        ({k: v for k, v in BRATS.items() if k != "labels"}, "got no 'labels'"),
        ({k: v for k, v in BRATS.items() if k != "training"}, "got no 'training'"),
        (changed(modality=["FLAIR"]), "expected a dict at 'modality', got a list"),
        (changed(training={}), "expected a list at 'training', got a dict"),
        (changed(modality={}), "expected the modality keys 0, 1, ... without a gap, got none"),
        (changed(modality={"0": "FLAIR", "2": "T2w"}), "without a gap, got 0, 2"),
        (changed(modality={"FLAIR": "0"}), "without a gap, got FLAIR"),
        (changed(modality={"0": "FLAIR", "1": "Flair"}), "got FLAIR, Flair"),
        (changed(labels={"1": "edema"}), "background, got 1"),
        (changed(labels={"0": "background", "edema": "1"}), "background, got 0, edema"),
        (changed(training=["imagesTr/B_1.nii.gz"]), "training entry 'imagesTr/B_1.nii.gz'"),
        (changed(training=[{"image": "imagesTr/B_1.nii.gz"}]), "a path for each of image, label"),
        (changed(test=[3]), "test entry 3"),
        (changed(training=[BRATS["training"][0]] * 2), "got B_1 2 times in training"),
        (
            changed(
                training=[case("imagesTr/B_1.nii.gz"), case("imagesTs/../imagesTr/B_1.nii.gz")]
            ),
            "got B_1 2 times in training",
        ),
        (changed(test=["imagesTs/B_3.nii.gz"] * 2), "got B_3 2 times in test"),
        (changed(test=["imagesTs/B_2.nii.gz"]), "got B_2 in training and in test"),
        (changed(test=["imagesTr/B_1.nii.gz"]), "got B_1 in training and in test"),
        (changed(training=[case("../other/B_1.nii.gz")]), "got '../other/B_1.nii.gz'"),
        (changed(training=[case("imagesTr/../../B_1.nii.gz")]), "got 'imagesTr/../../B_1.nii.gz'"),
        (changed(training=[case("imagesTr/B_1.nii.gz", "/etc/passwd")]), "got '/etc/passwd'"),
    ],
)
def test_a_wrong_dataset_json_is_refused_with_its_path_and_what_was_found(folder, content, words):
    write(folder, content)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        read_task(folder)
    assert str(error.value).startswith(str(folder / "dataset.json"))


def test_a_missing_folder_and_a_missing_dataset_json_are_named(folder):
    with pytest.raises(ValueError, match=r"nowhere: found no such folder"):
        read_task(folder / "nowhere")
    (folder / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"notes\.txt: found a \.txt; dataset_dir must be"):
        read_task(folder / "notes.txt")
    (folder / "dataset.json").rename(folder / "list.json")
    with pytest.raises(ValueError, match=r"found no file that is named after a known modality"):
        read_task(folder)
    assert len(read_task(folder / "list.json").training) == 2


@pytest.mark.parametrize("name", ["imagesTr/B_2", "labelsTr/B_1", "imagesTs/B_3"])
def test_a_listed_file_that_is_missing_is_named(folder, name):
    (folder / f"{name}.nii.gz").unlink()
    with pytest.raises(ValueError, match=rf"{name}\.nii\.gz: found no such file"):
        read_task(folder)


def test_training_does_not_need_the_test_images_on_disk(folder):
    (folder / "imagesTs" / "B_3.nii.gz").unlink()
    assert len(read_task(folder, on_disk=("training",)).test) == 1


def test_images_may_be_links_to_another_disk(folder):
    store = folder.parent / "store"
    (folder / "imagesTr").rename(store)
    (folder / "imagesTr").symlink_to(store, target_is_directory=True)
    assert read_task(folder).training[0].image == folder / "imagesTr" / "B_1.nii.gz"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            ("imagesTr/B_2", "labelsTr/B_1"),
            r"expected each file once, got labelsTr/B_1\.nii\.gz 2 ",
        ),
        (("labelsTr/B_1", "labelsTr/B_2"), r"expected each case once, got B_1 2 times"),
        (
            ("imagesTr/B_2", "imagesTr/B_2"),
            r"expected each file once, got imagesTr/B_2\.nii\.gz 2 ",
        ),
    ],
)
def test_a_file_that_is_listed_twice_is_refused(folder, entry, words):
    image, label = (f"./{name}.nii.gz" for name in entry)
    write(folder, changed(training=[BRATS["training"][0], {"image": image, "label": label}]))
    with pytest.raises(ValueError, match=words):
        read_task(folder)


@pytest.mark.parametrize("key", ["modality", "training", "0"])
def test_a_key_that_stands_twice_is_refused(folder, key):
    text = json.dumps(BRATS)
    start = text.index(f'"{key}":')
    write(folder, f'{text[:start]}"{key}": "x", {text[start:]}')
    with pytest.raises(ValueError, match=rf"dataset\.json: .*the key '{key}' stands there 2 times"):
        read_task(folder)


@pytest.mark.parametrize("start", ["[", '{"training":'])
def test_json_nested_without_end_is_refused(folder, start):
    write(folder, start * 200_000)
    with pytest.raises(ValueError, match=r"dataset\.json: .* nested too deep"):
        read_task(folder)
