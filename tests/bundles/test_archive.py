import os
import zipfile

import pytest

from lora_ext.bundles.package import write_archive


def test_same_contents_give_the_same_bytes_whatever_their_order_and_age(tmp_path):
    file = tmp_path / "model.pt"
    file.write_bytes(b"weights" * 1000)
    write_archive(tmp_path / "a.zip", {"B/b.txt": b"text", "B/model.pt": file})
    os.utime(file, (10**9, 10**9))
    file.chmod(0o600)
    write_archive(tmp_path / "b.zip", {"B/model.pt": file, "B/b.txt": b"text"})
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_contents_come_back_readable_for_everyone(tmp_path):
    file = tmp_path / "model.pt"
    file.write_bytes(b"weights")
    write_archive(tmp_path / "a.zip", {"B/b.txt": b"text", "B/model.pt": file})
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["B/b.txt", "B/model.pt"]
        assert archive.read("B/model.pt") == b"weights"
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o100644}


def test_failure_leaves_the_old_archive_as_it_was(tmp_path):
    path = tmp_path / "a.zip"
    write_archive(path, {"a": b"old"})
    before = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        write_archive(path, {"a": b"new", "b": tmp_path / "missing"})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
