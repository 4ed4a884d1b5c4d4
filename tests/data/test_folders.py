"""Plain folders of files and DICOM series: which cases they hold, and what they may not hold."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
from monai.transforms import LoadImaged

from lora_ext.data.cases import inference_cases

VOLUME = np.random.default_rng(0).integers(0, 999, (7, 6, 5)).astype(np.int16)
PAIR = np.stack([VOLUME, VOLUME], axis=3)
TWO = ["FLAIR", "t1gd"]


@pytest.fixture
def put(tmp_path, write_image, oblique):
    """A function that writes a volume under each of the names, without ending a DICOM series."""

    def run(*names, volume=VOLUME, **series):
        for name in names:
            write_image(tmp_path / name, volume, oblique, **series)
        return tmp_path

    return run


def found(folder, modalities=TWO):
    """Image paths relative to the folder, by case."""
    cases = {}
    for item in inference_cases(folder, modalities):
        paths = [item["image"]] if isinstance(item["image"], str) else item["image"]
        assert item["channels"] == list(range(len(modalities)))
        cases[item["case"]] = [path.removeprefix(f"{folder}/") for path in paths]
    return cases


def refused(folder, words, modalities=TWO):
    with pytest.raises(ValueError, match=words):
        inference_cases(folder, modalities)


def test_one_file_per_channel_may_have_any_ending(put):
    folder = put("a_FLAIR.nii.gz", "a_t1gd.nrrd", "b_flair.mha", "b_T1GD.nhdr", "c_FLAIR.mhd")
    put("c_t1gd.nii")
    assert found(folder) == {
        "a": ["a_FLAIR.nii.gz", "a_t1gd.nrrd"],
        "b": ["b_flair.mha", "b_T1GD.nhdr"],
        "c": ["c_FLAIR.mhd", "c_t1gd.nii"],
    }


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.nii"])
def test_one_file_may_hold_all_channels(put, name):
    folder = put(name, volume=PAIR)
    assert found(folder) == {"a": [name]}


def test_a_case_folder_holds_a_series_per_modality(put):
    folder = put("pat.1/FLAIR", "pat.1/T1GD", "pat.1/localizer", "2/t1gd", "2/flair")
    (folder / "2" / "report.txt").touch()
    assert found(folder) == {
        "2": ["2/flair", "2/t1gd"],
        "pat.1": ["pat.1/FLAIR", "pat.1/T1GD"],
    }


def test_a_series_folder_may_carry_case_and_modality_in_its_name(put):
    folder = put("a_FLAIR", "a_t1gd")
    assert found(folder) == {"a": ["a_FLAIR", "a_t1gd"]}


def test_series_and_files_may_be_mixed_in_a_case_and_in_a_folder(put):
    folder = put("a_FLAIR", "a_t1gd.nii.gz", "b/FLAIR", "b_t1gd.mha", "c/FLAIR", "c/t1gd")
    assert found(folder) == {
        "a": ["a_FLAIR", "a_t1gd.nii.gz"],
        "b": ["b/FLAIR", "b_t1gd.mha"],
        "c": ["c/FLAIR", "c/t1gd"],
    }


def test_with_one_modality_a_case_folder_may_be_the_series(put):
    folder = put("pat 1", "pat.2/T2", "pat3_T2", "pat4.mha")
    assert found(folder, ["T2"]) == {
        "pat 1": ["pat 1"],
        "pat.2": ["pat.2/T2"],
        "pat3": ["pat3_T2"],
        "pat4": ["pat4.mha"],
    }


def test_folders_without_dicom_are_ignored_and_logged(put, caplog):
    folder = put("a_FLAIR.nii", "a_t1gd.nii", "old/x.nii.gz", ".cache/y")
    (folder / "empty").mkdir()
    with caplog.at_level(logging.INFO):
        assert list(found(folder)) == ["a"]
    assert all(f"{folder / name}: ignored" in caplog.text for name in ("old", "empty"))
    assert ".cache" not in caplog.text


def test_an_empty_case_folder_is_refused_beside_other_cases(put):
    folder = put("a/FLAIR", "a/t1gd")
    (folder / "b").mkdir()
    refused(folder, f"^{folder}/b: found an empty folder beside those of other cases$")


def test_a_missing_modality_is_named_with_what_is_allowed(put):
    folder = put("a/FLAIR", "a/t1gd", "b/FLAIR", "b/T1")
    words = (
        f"{folder}: found no t1gd file of case b; expected b_t1gd.nii.gz (or .nii, .hdr, .nrrd, "
        ".nhdr, .mha, .mhd), or a DICOM series in the folder b/t1gd or b_t1gd"
    )
    refused(folder, f"^{re.escape(words)}$")


def test_a_case_folder_of_other_names_says_what_it_holds(put):
    folder = put("a/AX_FLAIR_3D", "a/AX_T1_GD")
    words = (
        "a: expected a folder per modality in it, named FLAIR, t1gd, got DICOM files in "
        "AX_FLAIR_3D, AX_T1_GD$"
    )
    refused(folder, words)
    refused(folder, words.replace("FLAIR, t1gd", "T2"), ["T2"])


def test_a_study_of_mixed_series_is_refused(put):
    folder = put("a")
    refused(
        folder, r"a: expected a folder per modality in it, .*got DICOM files in the folder itself"
    )


def test_two_images_for_one_channel_are_refused(put):
    folder = put("a/FLAIR", "a/t1gd", "a_t1gd")
    words = "a_t1gd: expected one image for the channel t1gd of case a, got a second next to"
    refused(folder, f"{words} {folder}/a/t1gd$")


def test_a_folder_without_any_image_lists_what_is_allowed(tmp_path):
    (tmp_path / "notes.txt").touch()
    words = (
        f"{tmp_path}: found no image; expected a folder of files that end in .nii.gz, .nii, "
        ".hdr, .nrrd, .nhdr, .mha, .mhd, of folders of cases or with DICOM series, or one with a "
        "dataset.json or datalist.json"
    )
    refused(tmp_path, f"^{re.escape(words)}$")


def test_a_series_itself_is_no_folder_of_cases(put):
    folder = put("series")
    refused(folder / "series", "series: found no image; expected .* with DICOM series")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda folder: (folder / "a/t1gd/notes.txt").write_text("text", encoding="utf-8"),
            "no readable DICOM imag",
        ),
        (lambda folder: [p.unlink() for p in (folder / "a/t1gd").iterdir()], "got no file"),
        (lambda folder: (folder / "a/t1gd/more").mkdir(), "got the folders more in it"),
    ],
)
def test_a_bad_series_ends_the_run_before_it_starts(put, damage, words):
    folder = put("a/FLAIR", "a/t1gd")
    damage(folder)
    refused(folder, f"^{folder}/a/t1gd: .*{words}")


def test_channels_on_different_grids_name_both_with_their_grids(put):
    folder = put("a/FLAIR")
    put("a/t1gd", volume=VOLUME[:, :, :4])
    words = (
        r"a/t1gd: expected the shape of .*a/FLAIR, \(7, 6, 5\) at 1\.5x1\.25x4 mm, "
        r"got \(7, 6, 4\) at 1\.5x1\.25x4 mm; resample one first, or, .* --resample_channels"
    )
    refused(folder, words)


def test_files_of_all_channels_lie_in_the_folder_itself_and_are_not_hidden(put):
    folder = put("b_1.nii.gz", "a.nii", "deeper/c.nii.gz", volume=PAIR)
    (folder / "._b_1.nii.gz").write_bytes(b"macOS")
    (folder / "notes.txt").touch()
    assert found(folder) == {"a": ["a.nii"], "b_1": ["b_1.nii.gz"]}
    words = r"a\.nii: expected 3 channels \(FLAIR, t1gd, T2w\), got 2"
    refused(folder, words, ["FLAIR", "t1gd", "T2w"])


def test_one_file_per_channel_is_put_in_the_order_of_the_modalities(put):
    folder = put("p_01_T1GD.nii.gz", "p_01_flair.nii.gz", "p_02_t1gd.nii.gz", "p_02_FLAIR.nii.gz")
    assert found(folder) == {
        "p_01": ["p_01_flair.nii.gz", "p_01_T1GD.nii.gz"],
        "p_02": ["p_02_FLAIR.nii.gz", "p_02_t1gd.nii.gz"],
    }


def test_the_longest_modality_that_fits_names_the_channel(put):
    folder = put("a_T1.nii", "a_ce_T1.nii", "b_T1.nii", "b_ce_T1.nii")
    assert found(folder, ["T1", "ce_T1"]) == {
        "a": ["a_T1.nii", "a_ce_T1.nii"],
        "b": ["b_T1.nii", "b_ce_T1.nii"],
    }


def test_other_sequences_and_segmentations_of_known_cases_are_ignored_and_logged(put, caplog):
    folder = put("a_FLAIR.nii", "a_t1gd.nii", "a_T2w.nii", "a_seg.nii")
    with caplog.at_level(logging.INFO):
        assert list(found(folder)) == ["a"]
    assert all(f"{name}.nii: ignored" in caplog.text for name in ("a_T2w", "a_seg"))


@pytest.mark.parametrize("name", ["other", "ab_T2w", "_FLAIR", "FLAIR"])
def test_any_other_single_channel_file_is_refused_by_name(put, name):
    folder = put("a_FLAIR.nii", "a_t1gd.nii", f"{name}.nii")
    refused(folder, rf"/{name}\.nii: expected 2 channels, or <case>_<modality>\.nii .*got a single")


@pytest.mark.parametrize(
    ("whole", "single", "modalities"),
    [
        ([], ["a_FLAIR.nii.gz", "a_flair.nii", "a_t1gd.nii"], TWO),
        (["a.nii.gz", "a.nii"], [], TWO),
        (["a.nii.gz"], ["a_FLAIR.nii", "a_t1gd.nii"], TWO),
        ([], ["a.nii.gz", "a_T2.nii.gz"], ["T2"]),
    ],
)
def test_two_files_for_one_channel_of_a_case_are_refused(put, whole, single, modalities):
    put(*whole, volume=PAIR)
    refused(put(*single), "expected one image .*of case a, got a second next to", modalities)


def test_with_one_modality_a_3d_file_is_a_case_of_its_own(put):
    folder = put("p_1.nii", "p_1_2.nii", "q_T2.nii", "q_seg.nii")
    expected = {"p_1": ["p_1.nii"], "p_1_2": ["p_1_2.nii"], "q": ["q_T2.nii"]}
    assert found(folder, ["T2"]) == expected
    items = inference_cases(folder, ["T2"])
    assert LoadImaged("image", ensure_channel_first=True)(items[0])["image"].shape == (1, 7, 6, 5)


def test_an_empty_folder_a_missing_one_and_a_damaged_image_are_refused(tmp_path):
    (tmp_path / "._a.nii.gz").touch()
    refused(tmp_path, "found no image")
    (tmp_path / "a.nii.gz").touch()
    refused(tmp_path, r"a\.nii\.gz: .*got a damaged")
    refused(tmp_path / "nowhere", "found no such folder")


@pytest.mark.parametrize("modalities", [[], "FLAIR", ["FLAIR", "flair"]])
def test_modalities_must_be_different_names(put, modalities):
    words = re.escape(f"expected a list of names, each of them once, got {modalities!r}")
    refused(put("a.nii.gz"), words, modalities)


def test_hidden_files_and_folders_do_not_count_at_any_depth(put):
    folder = put("a/FLAIR", "a/t1gd", "a/.old")
    for name in ("._a_FLAIR.nii.gz", ".DS_Store", "a/._FLAIR", "a/FLAIR/._I000"):
        (folder / name).write_text("macOS", encoding="utf-8")
    assert found(folder) == {"a": ["a/FLAIR", "a/t1gd"]}


def test_linked_cases_are_cases(put, tmp_path_factory):
    store = put("FLAIR", "t1gd")
    data = tmp_path_factory.mktemp("data")
    (data / "a").symlink_to(store)
    assert found(data) == {"a": ["a/FLAIR", "a/t1gd"]}


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_a_header_without_its_data_file_is_called_that(put, name):
    folder = put(name)
    (folder / "a.raw").unlink()
    refused(
        folder, rf"{name}: found no data file a\.raw beside it, which holds its voxels; copy it"
    )
