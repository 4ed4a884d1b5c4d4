"""A task from a server on this machine: whole or absent, and nothing gets out of its folder."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import shlex
import shutil
import tarfile
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from monai.apps.datasets import DecathlonDataset

from lora_ext.data.download import TASKS, check_md5, download_task, extract_folder, next_command
from lora_ext.data.task import read_task

TASK = "Task05_Prostate"
VOXELS = b"voxels " * 30_000
GOOD = {"Task/dataset.json": b"{}", "Task/imagesTr/a.nii.gz": b"voxels" * 1000}
CONTENT = {
    "modality": {"0": "T2", "1": "ADC"},
    "labels": {"0": "background", "1": "PZ", "2": "TZ"},
    "training": [{"image": "./imagesTr/p_0.nii.gz", "label": "./labelsTr/p_0.nii.gz"}],
    "test": ["./imagesTs/p_1.nii.gz"],
}


def pack(target, files, *members):
    """Write a tar of files (bytes by name) and further members to a path or a stream."""
    where = {"name": target} if isinstance(target, Path) else {"fileobj": target}
    with tarfile.open(**where, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return target


def pack_task(content=CONTENT, more=None):
    """The bytes of a task's archive, as the Decathlon lays it out."""
    files = {
        f"{TASK}/dataset.json": json.dumps(content).encode(),
        f"{TASK}/imagesTr/p_0.nii.gz": VOXELS,
        f"{TASK}/labelsTr/p_0.nii.gz": VOXELS,
        f"{TASK}/imagesTs/p_1.nii.gz": VOXELS,
        f"{TASK}/._dataset.json": b"macOS",
    }
    return pack(io.BytesIO(), files | (more or {})).getvalue()


class Answer(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        self.server.requests += 1


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    """A server of one folder; `serve(bytes)` puts an archive there and publishes its MD5."""
    folder = tmp_path_factory.mktemp("served")
    handler = functools.partial(Answer, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.requests, server.url = 0, f"http://127.0.0.1:{server.server_port}/{TASK}.tar"

    def serve(archive):
        server.archive = archive
        (folder / f"{TASK}.tar").write_bytes(archive)
        monkeypatch.setitem(DecathlonDataset.md5, TASK, hashlib.md5(archive).hexdigest())

    server.serve = serve
    serve(pack_task())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def download(server, folder, **flags):
    return download_task("prostatex", folder, url=server.url, waits=(), **flags)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def is_whole(folder):
    task = read_task(folder)
    return (
        task.channels == ("T2", "ADC")
        and task.training[0].image.read_bytes() == VOXELS
        and not (folder / "._dataset.json").exists()
    )


def test_a_task_is_downloaded_extracted_and_nothing_else_stays(server, tmp_path):
    folder = download(server, tmp_path / "new" / "data")
    assert folder == tmp_path / "new" / "data" / TASK
    assert is_whole(folder)
    assert names(folder.parent) == [TASK]
    assert server.requests == 1


def test_the_archive_is_kept_when_asked(server, tmp_path):
    download(server, tmp_path, keep_archive=True)
    assert names(tmp_path) == [TASK, f"{TASK}.tar"]
    assert (tmp_path / f"{TASK}.tar").read_bytes() == server.archive


def test_monai_knows_every_task():
    assert set(TASKS.values()) <= DecathlonDataset.resource.keys() & DecathlonDataset.md5.keys()


def test_without_a_url_monais_address_is_asked(server, tmp_path, monkeypatch):
    monkeypatch.setitem(DecathlonDataset.resource, TASK, server.url)
    assert is_whole(download_task("prostatex", tmp_path, waits=()))


def test_a_mirror_is_held_to_monais_checksum(server, tmp_path, monkeypatch):
    monkeypatch.setitem(DecathlonDataset.md5, TASK, "0" * 32)
    with pytest.raises(ValueError, match=f"{server.url}: expected a file with MD5 {'0' * 32}"):
        download(server, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["../outside", "/outside", f"{TASK}/../../outside"])
def test_an_archive_that_would_leave_the_folder_is_refused(server, tmp_path, name):
    server.serve(pack_task(more={name: b"x"}))
    with pytest.raises(ValueError, match=f"'{name}' .Unsafe path"):
        download(server, tmp_path / "data")
    assert names(tmp_path) == ["data"]
    assert names(tmp_path / "data") == [f"{TASK}.tar"]


def test_an_archive_that_lacks_a_listed_file_does_not_become_a_task(server, tmp_path):
    server.serve(pack_task(CONTENT | {"test": ["./imagesTs/p_7.nii.gz"]}))
    with pytest.raises(ValueError, match=r"p_7\.nii\.gz: found no such file"):
        download(server, tmp_path)
    assert names(tmp_path) == [f"{TASK}.tar"]


def test_a_second_call_makes_no_request(server, tmp_path):
    first = download(server, tmp_path)
    before = (first / "dataset.json").stat().st_mtime_ns, server.requests
    assert download(server, tmp_path) == first
    assert ((first / "dataset.json").stat().st_mtime_ns, server.requests) == before


def test_an_empty_folder_counts_as_absent(server, tmp_path):
    (tmp_path / TASK).mkdir()
    assert is_whole(download(server, tmp_path))


def test_a_folder_that_is_no_complete_task_is_left_as_it_is(server, tmp_path):
    folder = download(server, tmp_path)
    (folder / "imagesTs" / "p_1.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"p_1\.nii\.gz: found no such file.*remove or rename it"):
        download(server, tmp_path)
    assert (folder / "dataset.json").exists()
    assert server.requests == 1


def test_a_call_interrupted_before_or_in_extraction_is_resumed_from_the_archive(server, tmp_path):
    (tmp_path / f"{TASK}.tar").write_bytes(server.archive)
    (tmp_path / f".{TASK}.extracting" / TASK).mkdir(parents=True)
    assert is_whole(download(server, tmp_path))
    assert server.requests == 0
    assert names(tmp_path) == [TASK]


def test_a_wrong_archive_in_the_folder_is_refused(server, tmp_path):
    (tmp_path / f"{TASK}.tar").write_bytes(server.archive[:-1])
    with pytest.raises(ValueError, match=rf"{TASK}\.tar: expected a file with MD5"):
        download(server, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("task", ["liver", "Brats", None])
def test_an_unknown_task_is_named_with_the_known(tmp_path, task):
    with pytest.raises(ValueError, match=f"task: expected one of brats, prostatex, got {task!r}"):
        download_task(task, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/x", "x.tar", True, "http://", ""])
def test_an_address_that_is_not_http_is_refused(tmp_path, url):
    with pytest.raises(ValueError, match="expected an http:// or https:// address"):
        download_task("brats", tmp_path, url=url)


def test_the_next_command_trains_on_the_folder(root, tmp_path):
    words = shlex.split(next_command("brats", tmp_path / "a folder"))
    assert words[:5] == ["python", "-m", "monai.bundle", "run", "training"]
    assert words[-2:] == ["--dataset_dir", str(tmp_path / "a folder")]
    for task in TASKS:
        words = shlex.split(next_command(task, tmp_path))
        assert (root / words[words.index("--config_file") + 1]).is_file()


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
    "name", ["../outside.txt", "Task/../../outside.txt", "TMP/outside.txt", "Task/a/../../../b"]
)
def test_a_member_outside_the_folder_is_refused_before_anything_is_written(tmp_path, name):
    folder, name = tmp_path / "data", name.replace("TMP", str(tmp_path))
    folder.mkdir()
    archive = pack(tmp_path / "Task.tar", GOOD | {name: b"x"})
    with pytest.raises(ValueError, match="Unsafe path") as error:
        extract_folder(archive, folder / "Task")
    assert repr(name) in str(error.value)
    assert str(archive) in str(error.value)
    assert everything_below(tmp_path) == ["Task.tar", "data"]


@pytest.mark.parametrize(
    ("kind", "target", "detected"),
    [
        (tarfile.SYMTYPE, "../../outside", "Symbolic link"),
        (tarfile.SYMTYPE, "/etc", "Symbolic link"),
        (tarfile.SYMTYPE, "dataset.json", "Symbolic link"),
        (tarfile.LNKTYPE, "../outside", "Hard link"),
        (tarfile.CHRTYPE, "", "Device"),
        (tarfile.FIFOTYPE, "", "Device"),
    ],
)
def test_links_and_devices_are_refused_by_name(tmp_path, kind, target, detected):
    archive = pack(tmp_path / "Task.tar", GOOD, special("Task/odd", kind, target))
    with pytest.raises(ValueError, match=f"'Task/odd' .{detected} detected"):
        extract_folder(archive, tmp_path / "Task")
    assert everything_below(tmp_path) == ["Task.tar"]


def test_a_file_is_not_written_through_a_link_of_the_archive(tmp_path):
    (tmp_path / "outside").mkdir()
    link = special("Task/imagesTs", tarfile.SYMTYPE, str(tmp_path / "outside"))
    archive = pack(tmp_path / "Task.tar", GOOD, link)
    with tarfile.open(archive, "a") as tar:
        tar.addfile(tarfile.TarInfo("Task/imagesTs/b.nii.gz"))
    with pytest.raises(ValueError, match="Task/imagesTs"):
        extract_folder(archive, tmp_path / "Task")
    assert everything_below(tmp_path) == ["Task.tar", "outside"]


@pytest.mark.parametrize("keep", [0, 100, 700, 3000])
def test_a_cut_off_or_foreign_file_is_no_archive(tmp_path, keep):
    archive = pack(tmp_path / "Task.tar", GOOD)
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"Task\.tar: expected "):
        extract_folder(archive, tmp_path / "Task")
    assert everything_below(tmp_path) == ["Task.tar"]


def test_an_archive_of_another_folder_is_refused(tmp_path):
    archive = pack(tmp_path / "Task.tar", {"Other/dataset.json": b"{}"})
    with pytest.raises(ValueError, match="expected an archive of the folder Task"):
        extract_folder(archive, tmp_path / "Task")
    assert everything_below(tmp_path) == ["Task.tar"]


def test_a_folder_that_fails_its_check_does_not_appear(tmp_path):
    def refuse(folder):
        raise ValueError(
            f"{folder.name} with {(folder / 'dataset.json').read_text(encoding='utf-8')}"
        )

    archive = pack(tmp_path / "Task.tar", GOOD)
    with pytest.raises(ValueError, match=r"Task with \{\}"):
        extract_folder(archive, tmp_path / "Task", check=refuse)
    assert everything_below(tmp_path) == ["Task.tar"]


def test_what_an_interrupted_extraction_left_is_cleared(tmp_path):
    (tmp_path / ".Task.extracting" / "Task").mkdir(parents=True)
    (tmp_path / ".Task.extracting" / "Task" / "stale").touch()
    extract_folder(pack(tmp_path / "Task.tar", GOOD), tmp_path / "Task")
    assert [path for path in everything_below(tmp_path) if "stale" in path] == []


def test_a_small_disk_is_said_before_extraction(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10_000, 4_000, 6_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    archive = pack(tmp_path / "Task.tar", GOOD)  # 6002 bytes in its files
    with pytest.raises(
        ValueError,
        match=r"expected 5\.86kB of free disk space for extracting Task\.tar, got 5\.86kB",
    ):
        extract_folder(archive, tmp_path / "Task")
    assert everything_below(tmp_path) == ["Task.tar"]


def test_the_right_checksum_passes_and_a_wrong_one_removes_the_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    check_md5(file, "900150983cd24fb0d6963f7d28e17f72", "here")  # RFC 1321, A.5
    assert file.exists()
    file.write_bytes(b"abd")
    with pytest.raises(ValueError, match=r"here: expected a file with MD5 9001.*3 bytes"):
        check_md5(file, "900150983cd24fb0d6963f7d28e17f72", "here")
    assert not file.exists()
