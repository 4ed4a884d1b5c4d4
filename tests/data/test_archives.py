"""Archives from elsewhere: nothing gets out of the folder, and a folder is whole or absent."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections import namedtuple

import pytest

from lora_ext.data.download import check_md5, extract_folder

GOOD = {"Task/dataset.json": b"{}", "Task/imagesTr/a.nii.gz": b"voxels" * 1000}


def pack(path, files, *members):
    """Write a tar of files (bytes by name) and further members."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return path


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def everything_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_the_folder_is_extracted_and_nothing_else_stays(tmp_path):
    archive = pack(tmp_path / "Task.tar", GOOD)
    extract_folder(archive, tmp_path / "Task")
    assert everything_below(tmp_path) == [
        "Task",
        "Task.tar",
        "Task/dataset.json",
        "Task/imagesTr",
        "Task/imagesTr/a.nii.gz",
    ]
    assert (tmp_path / "Task/imagesTr/a.nii.gz").read_bytes() == b"voxels" * 1000


def test_what_macos_adds_is_left_out(tmp_path):
    added = {"._Task": b"x", "Task/imagesTr/._a.nii.gz": b"x", "__MACOSX/Task/b": b"x"}
    extract_folder(pack(tmp_path / "Task.tar", GOOD | added), tmp_path / "Task")
    assert not [path for path in everything_below(tmp_path) if "._" in path or "MACOSX" in path]


@pytest.mark.parametrize(
    "name", ["../outside.txt", "Task/../../outside.txt", "/outside.txt", "Task/a/../../../b"]
)
def test_a_member_outside_the_folder_is_refused_before_anything_is_written(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    archive = pack(tmp_path / "Task.tar", GOOD | {name: b"x"})
    with pytest.raises(ValueError, match="leaves the folder") as error:
        extract_folder(archive, folder / "Task")
    assert repr(name) in str(error.value)
    assert str(archive) in str(error.value)
    assert everything_below(tmp_path) == ["Task.tar", "data"]


def test_an_absolute_path_writes_nothing_there(tmp_path):
    victim = tmp_path / "victim"
    archive = pack(tmp_path / "Task.tar", GOOD | {str(victim): b"x"})
    with pytest.raises(ValueError, match="victim"):
        extract_folder(archive, tmp_path / "Task")
    assert everything_below(tmp_path) == ["Task.tar"]


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "../../outside"),
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "dataset.json"),
        (tarfile.LNKTYPE, "../outside"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_are_refused_by_name(tmp_path, kind, target):
    archive = pack(tmp_path / "Task.tar", GOOD, special("Task/odd", kind, target))
    with pytest.raises(ValueError, match="'Task/odd', a link or device") as error:
        extract_folder(archive, tmp_path / "Task")
    assert target in str(error.value)
    assert everything_below(tmp_path) == ["Task.tar"]


def test_a_file_is_not_written_through_a_link_of_the_archive(tmp_path):
    (tmp_path / "outside").mkdir()
    link = special("Task/imagesTs", tarfile.SYMTYPE, str(tmp_path / "outside"))
    archive = tmp_path / "Task.tar"
    pack(archive, GOOD, link)
    with tarfile.open(archive, "a") as tar:
        member = tarfile.TarInfo("Task/imagesTs/b.nii.gz")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(ValueError, match="Task/imagesTs"):
        extract_folder(archive, tmp_path / "Task")
    assert everything_below(tmp_path) == ["Task.tar", "outside"]


@pytest.mark.parametrize("keep", [0, 100, 700, 3000])
def test_a_cut_off_or_foreign_file_is_no_archive(tmp_path, keep):
    archive = pack(tmp_path / "Task.tar", GOOD)
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"Task\.tar: found no "):
        extract_folder(archive, tmp_path / "Task")
    assert everything_below(tmp_path) == ["Task.tar"]


def test_an_archive_of_another_folder_is_refused(tmp_path):
    archive = pack(tmp_path / "Task.tar", {"Other/dataset.json": b"{}"})
    with pytest.raises(ValueError, match="found no folder Task"):
        extract_folder(archive, tmp_path / "Task")
    assert everything_below(tmp_path) == ["Task.tar"]


def test_a_folder_that_fails_its_check_does_not_appear(tmp_path):
    def refuse(folder):
        raise ValueError(f"{folder.name} with {(folder / 'dataset.json').read_text()}")

    archive = pack(tmp_path / "Task.tar", GOOD)
    with pytest.raises(ValueError, match=r"Task with \{\}"):
        extract_folder(archive, tmp_path / "Task", check=refuse)
    assert everything_below(tmp_path) == ["Task.tar"]


def test_what_a_killed_extraction_left_is_cleared(tmp_path):
    (tmp_path / ".Task.extracting" / "Task").mkdir(parents=True)
    (tmp_path / ".Task.extracting" / "Task" / "stale").touch()
    extract_folder(pack(tmp_path / "Task.tar", GOOD), tmp_path / "Task")
    assert [path for path in everything_below(tmp_path) if "stale" in path] == []


def test_a_small_disk_is_said_before_extraction(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10_000, 4_000, 6_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    archive = pack(tmp_path / "Task.tar", GOOD)  # 6002 bytes in its files
    with pytest.raises(ValueError, match=r"found 5\.86kB of free .* needs 5\.86kB"):
        extract_folder(archive, tmp_path / "Task")
    assert everything_below(tmp_path) == ["Task.tar"]


def test_the_right_checksum_passes_and_a_wrong_one_removes_the_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    check_md5(file, "900150983cd24fb0d6963f7d28e17f72", "here")  # RFC 1321, A.5
    assert file.exists()
    file.write_bytes(b"abd")
    found = hashlib.md5(b"abd").hexdigest()
    with pytest.raises(ValueError, match=rf"here: .* {found}; allowed is MD5 900150983cd24fb0"):
        check_md5(file, "900150983cd24fb0d6963f7d28e17f72", "here")
    assert not file.exists()
