"""Arguments of a phantom and the folder it is written to."""

from __future__ import annotations

import json

import pytest

from lora_ext.phantoms.write import check_count, is_done, parse_size


@pytest.mark.parametrize(
    "given", ["128,128,48", "(128, 128, 48)", " 128, 128,48 ", (128, 128, 48), [128, 128, 48]]
)
def test_size_is_read_from_a_string_or_a_sequence(given):
    assert parse_size(given) == (128, 128, 48)


@pytest.mark.parametrize(
    "given",
    [
        *("128,128", "128x128x48", "", "a,b,c", "64,64,-32", "64,64,32.0"),
        *((64, 64, 15), (64, 64), (64.0, 64, 64), (True, 64, 64), {64, 65, 66}, 64, None),
    ],
)
def test_bad_sizes_are_refused_with_what_was_given_and_what_is_allowed(given):
    with pytest.raises(ValueError, match="three integers of at least 16") as caught:
        parse_size(given)
    assert repr(given) in str(caught.value)


def test_the_least_count_is_allowed_and_one_less_is_not():
    assert check_count("cases", 1, 1) == 1
    with pytest.raises(ValueError, match="cases: found 0; allowed is an integer of at least 1"):
        check_count("cases", 0, 1)


def test_a_new_or_an_empty_folder_is_free(tmp_path):
    assert not is_done(tmp_path / "new", {})
    assert not is_done(tmp_path, {})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"phantom": {}}', "not json"])
def test_a_folder_with_other_things_is_refused_by_name(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ValueError, match="found a folder with other files") as caught:
        is_done(tmp_path, {"seed": 0})
    assert str(tmp_path) in str(caught.value)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="found a file"):
        is_done(tmp_path / "out", {})


def test_the_same_phantom_is_done_only_while_its_files_are_there(tmp_path):
    listing = {"training": [], "test": ["./imagesTs/a.nii.gz"], "phantom": {"seed": 0}}
    (tmp_path / "dataset.json").write_text(json.dumps(listing))
    with pytest.raises(ValueError, match=r"without \./imagesTs/a\.nii\.gz"):
        is_done(tmp_path, {"seed": 0})
    (tmp_path / "imagesTs").mkdir()
    (tmp_path / "imagesTs" / "a.nii.gz").write_bytes(b"")
    assert is_done(tmp_path, {"seed": 0})
