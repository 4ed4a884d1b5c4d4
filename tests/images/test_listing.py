"""Folders as file browsers and people leave them: hidden files, links, circles."""

from __future__ import annotations

from lora_ext.images.listing import counted, entries, files_below, listed


def names(folder, paths):
    return [str(path.relative_to(folder)) for path in paths]


def test_hidden_files_and_folders_are_not_listed(tmp_path):
    for name in ("a.nii", "._a.nii", ".DS_Store", "b/c.nii", "b/._c.nii", ".git/d.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path, entries(tmp_path)) == ["a.nii", "b"]
    assert names(tmp_path, files_below(tmp_path)) == ["a.nii", "b/c.nii"]


def test_linked_folders_are_followed_once_and_circles_end(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/a.nii").touch()
    (tmp_path / "store/up").symlink_to(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/linked").symlink_to(tmp_path / "store")
    (tmp_path / "data/again").symlink_to(tmp_path / "store")
    assert names(tmp_path / "data", files_below(tmp_path / "data")) == ["again/a.nii"]


def test_long_lists_are_cut():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdef")) == "a, b, c, d and 2 more"


def test_one_thing_has_no_plural():
    assert [counted(n, "voxel") for n in (0, 1, 2)] == ["0 voxels", "1 voxel", "2 voxels"]
