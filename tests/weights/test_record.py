"""What the record of a model says of its settings."""

import pytest

from lora_ext.weights import model_folders, recorded_settings, save_model, trained_settings

NAMES = ("intensity", "ct_window", "modalities", "roi_size")


@pytest.fixture
def record(tmp_path, small_network):
    """A function that saves a model with further entries in its record, and looks them up."""

    def look_up(**more):
        network = small_network(modalities=["CT", "PET"])
        network.config.update(more)
        save_model(network, tmp_path / "model.pt")
        return recorded_settings(tmp_path, NAMES)

    return look_up


def test_model_that_does_not_say_its_modalities_kinds_is_mr(record, tmp_path):
    assert record()["intensity"] == "mr"
    bundle = {"intensity": {"CT": "ct", "PET": "pet"}, "ct_window": [-10, 10]}
    assert trained_settings(tmp_path, bundle) == {"intensity": "mr", "ct_window": [-10, 10]}


def test_kinds_and_windows_are_those_of_the_record(record):
    kinds = {"CT": "ct", "PET": "pet"}
    found = record(intensity=kinds, ct_window=[-160, 240])
    assert (found["intensity"], found["ct_window"]) == (kinds, [-160, 240])
    assert found["roi_size"] == [32, 32, 16]


def test_bundle_without_a_model_has_its_own(tmp_path):
    assert recorded_settings(tmp_path, NAMES) == {}
    assert trained_settings(tmp_path, {"intensity": "ct"}) == {"intensity": "ct"}


@pytest.fixture
def folds(tmp_path, small_network):
    """A function that saves models with these entries in their records -> their folders."""

    def save(*records):
        folders = [tmp_path / f"fold{number}" for number in range(len(records))]
        for folder, record in zip(folders, records, strict=True):
            network = small_network(modalities=["CT", "PET"])
            network.config.update(record)
            save_model(network, folder / "model.pt")
        return folders

    return save


def test_folders_of_models_are_one_a_list_or_those_that_match_a_pattern(folds, tmp_path):
    folders = folds({}, {})
    (tmp_path / "fold.log").touch()
    assert model_folders(str(folders[0])) == folders[:1]
    assert model_folders(tmp_path / "none") == [tmp_path / "none"]  # looked at when it is loaded
    assert model_folders([str(folders[1]), folders[0]]) == folders[::-1]
    assert model_folders(f"{tmp_path}/fold*") == folders
    assert model_folders([f"{tmp_path}/fold[0-9]"]) == folders
    (tmp_path / "fold*").mkdir()
    assert model_folders(f"{tmp_path}/fold*") == [tmp_path / "fold*"]
    with pytest.raises(ValueError, match=r"found no folder like .*other\*, expected"):
        model_folders(f"{tmp_path}/other*")
    with pytest.raises(ValueError, match="fold0 twice, expected it once"):
        model_folders([folders[0], f"{tmp_path}/fold?"])


def test_models_of_folds_agree_in_all_but_fold_seed_and_cases(folds):
    shared = {"ct_window": [-160, 240], "num_folds": 2, "epochs": 3}
    folders = folds(
        {**shared, "fold": 0, "seed": 0, "trained_on": ["a"], "training_cases": None},
        {**shared, "fold": 1, "seed": 5, "trained_on": ["b", "c"], "training_cases": 2},
    )
    assert recorded_settings(folders, NAMES)["ct_window"] == [-160, 240]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"ct_window": [-1, 1]},
            r"fold1: found a model with ct_window \[-1, 1\], expected \[-9",
        ),
        (
            {"ct_window": [-9, 9], "split_seed": 1},
            "split_seed 1, expected None as in .*fold0: mod",
        ),
        ({"ct_window": [-9, 9], "lora_alpha": 3.0}, r"lora_alpha 3\.0, expected"),
        (
            {"epochs": 1},
            r"ct_window None, expected .* \(and 1 more that differ\): model",
        ),
    ],
)
def test_models_that_differ_in_more_are_no_ensemble(folds, other, said):
    folders = folds({"ct_window": [-9, 9]}, other)
    with pytest.raises(ValueError, match=said):
        recorded_settings(folders, NAMES)
