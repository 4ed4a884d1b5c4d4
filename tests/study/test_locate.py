"""Finding data sets by name, and bundles here or made."""

import json

import pytest

from lora_ext.study.locate import find_bundles, find_tasks


def make_task(folder, channels=("FLAIR", "t1gd")):
    folder.mkdir(parents=True)
    content = {
        "modality": {str(i): name for i, name in enumerate(channels)},
        "labels": {"0": "background"},
        "training": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name", ["Task01_BrainTumour", "phantom_brats", "brats"])
def test_task_folders_are_found_by_name(tmp_path, name):
    task = make_task(tmp_path / name)
    assert find_tasks(tmp_path, []) == {"brats": task}
    assert find_tasks(tmp_path, ["brats"]) == {"brats": task}


def test_real_data_come_before_phantoms(tmp_path):
    make_task(tmp_path / "phantom_brats")
    real = make_task(tmp_path / "Task01_BrainTumour")
    assert find_tasks(tmp_path, [])["brats"] == real


def test_a_missing_data_set_is_named_with_what_was_looked_for(tmp_path):
    make_task(tmp_path / "brats")
    with pytest.raises(ValueError, match="Task05_Prostate, phantom_prostatex, prostatex") as caught:
        find_tasks(tmp_path, ["brats", "prostatex"])
    assert "Task01" not in str(caught.value)


def test_an_empty_folder_and_no_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Task01_BrainTumour.*Task05_Prostate"):
        find_tasks(tmp_path, [])
    with pytest.raises(ValueError, match="found no such folder"):
        find_tasks(tmp_path / "none", [])


def test_one_task_folder_is_known_by_its_channels(tmp_path):
    brain = make_task(tmp_path / "a", ["t1gd", "flair"])
    prostate = make_task(tmp_path / "b", ["ADC", "T2"])
    assert find_tasks(brain, []) == {"brats": brain}
    assert find_tasks(prostate, []) == {"prostatex": prostate}


def test_one_task_folder_of_unknown_channels_needs_named_bundles(tmp_path):
    task = make_task(tmp_path / "ct", ["CT", "PET"])
    with pytest.raises(ValueError, match="channels ct, pet do not tell"):
        find_tasks(task, [])
    assert find_tasks(task, ["brats"]) == {"brats": task}


def test_one_task_folder_does_not_serve_two_data_sets(tmp_path):
    task = make_task(tmp_path / "a")
    with pytest.raises(ValueError, match="brats and prostatex"):
        find_tasks(task, ["brats", "prostatex"])


def test_bundles_are_taken_from_here_and_made_where_there_are_none(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    assert str(find_bundles(["brats_lora32"], tmp_path)) == "bundles"
    assert not list(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    made = find_bundles(["brats_lora32"], tmp_path / "out")
    assert made == tmp_path / "out" / "bundles"
    ours = root / "bundles/brats_lora32/configs/train.json"
    assert (made / "brats_lora32/configs/train.json").read_text() == ours.read_text()
