"""Files are whole or not there; a killed process is told from a living one by the system itself."""

import os
import re
import resource
import signal
import subprocess
import sys
import threading

import pytest
import torch

from lora_ext.files import hold_folder, remove_drafts, try_folder, whole_file


def listed(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def other_process(code, *arguments, wait=True, **options):
    """Another Python process; without `wait` it has printed a line when this returns."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", **options}
    if wait:
        return subprocess.run(command, check=False, timeout=60, **pipes)
    child = subprocess.Popen(command, **pipes)
    child.stdout.readline()
    return child


def test_file_appears_whole_and_its_folder_is_made(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with whole_file(target) as draft:
        draft.write_text("all of it", encoding="utf-8")
        assert not target.exists()
        assert draft.name == target.name  # libraries choose formats by it
        assert os.stat(draft).st_dev == os.stat(target.parent).st_dev  # so that it can be renamed
    assert target.read_text(encoding="utf-8") == "all of it"
    assert listed(target.parent) == ["file.txt"]


@pytest.mark.parametrize(
    "error", [OSError("odd"), KeyboardInterrupt(), SystemExit(3), RuntimeError()]
)
def test_failed_or_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "file.txt"
    target.write_text("old", encoding="utf-8")

    def fail_half_way():
        with whole_file(target) as draft:
            draft.write_text("half", encoding="utf-8")
            raise error

    with pytest.raises(type(error)):
        fail_half_way()
    assert target.read_text(encoding="utf-8") == "old"
    assert listed(tmp_path) == ["file.txt"]


def test_bytes_are_on_the_disk_before_the_rename_and_the_rename_before_the_end(
    tmp_path, monkeypatch
):
    done = []
    sync, replace = os.fsync, os.replace

    def synced(number):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{number}")))
        sync(number)

    def replaced(old, new):
        done.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    with whole_file(tmp_path / "file.txt") as draft:
        draft.write_text("x", encoding="utf-8")
    assert done == ["file.txt", "rename", tmp_path.name]


def by_python(path):
    path.write_bytes(b"x" * 2**20)


def by_torch(path):
    torch.save({"x": torch.zeros(2**18)}, path)


def by_safetensors(path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2**18)}, path)


@pytest.mark.parametrize("write", [by_python, by_torch, by_safetensors])
def test_full_disk_is_one_sentence_and_the_previous_file_is_as_it_was(tmp_path, write):
    """A limit on the size of files stands in for the disk."""
    target = tmp_path / "model.pt"
    target.write_bytes(b"old")

    def save():
        with whole_file(target) as draft:
            write(draft)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, limits[1]))
    try:
        with pytest.raises(ValueError, match="found no space left while it was written") as error:
            save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value).startswith(str(target))
    assert target.read_bytes() == b"old"
    assert listed(tmp_path) == ["model.pt"]


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"file.*: found a file in the place of a folder, exp"):
            try_folder(folder)
    with pytest.raises(ValueError, match=r"/proc/.*: found .*, expected a folder that can be made"):
        try_folder("/proc/none/of/these")
    with pytest.raises(ValueError, match=r"/proc: found .*, expected a folder that can be made"):
        try_folder("/proc")  # exists and takes no files, whoever asks


def test_folder_without_room_is_one_sentence(tmp_path, monkeypatch):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(ValueError, match="found no space left, expected a folder"):
            try_folder(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert listed(tmp_path) == []


def test_tried_folder_is_there_and_empty(tmp_path):
    try_folder(tmp_path / "a" / "b")
    assert listed(tmp_path / "a" / "b") == []


WRITER = """
import sys, time
from lora_ext.files import whole_file
with whole_file(sys.argv[1]) as draft:
    draft.write_text("half", encoding="utf-8")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("place", ["model.pt", "figures/a b.png"])
def test_drafts_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    living = other_process(WRITER, tmp_path / place, wait=False)
    killed = other_process(WRITER, tmp_path / place, wait=False)
    killed.kill()
    killed.communicate()
    folder = (tmp_path / place).parent
    assert len(listed(folder)) == 2
    with whole_file(tmp_path / place) as draft:  # so do those of this process
        draft.write_text("new", encoding="utf-8")
        remove_drafts(tmp_path)
        assert draft.parent.is_dir()
        assert len(listed(folder)) == 2
    living.kill()
    living.communicate()
    remove_drafts(tmp_path)
    assert listed(folder) == [(tmp_path / place).name]


HOLDER = """
import os, sys, time
from lora_ext.files import hold_folder
hold_folder(sys.argv[1], "ckpt_dir")
print("held", flush=True)
if sys.argv[2:] and os.fork() == 0:
    os.close(1), os.close(2)
time.sleep(20)
"""


def test_folder_is_one_processes_until_it_ends_however_it_ends(tmp_path):
    holder = other_process(HOLDER, tmp_path, wait=False)
    with pytest.raises(ValueError, match=r"another run at work .* another --ckpt_dir"):
        hold_folder(tmp_path, "ckpt_dir")
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    hold_folder(tmp_path, "ckpt_dir")
    hold_folder(tmp_path, "ckpt_dir")  # a second run of the same process
    late = other_process(HOLDER, tmp_path)
    assert re.search("another run at work", late.stderr)


def test_data_workers_that_outlive_a_killed_run_do_not_hold_its_folder(tmp_path):
    holder = other_process(HOLDER, tmp_path, "fork", wait=False)
    holder.kill()
    holder.communicate()
    hold_folder(tmp_path, "ckpt_dir")


def test_threads_may_write_at_once(tmp_path):
    def write(number):
        with whole_file(tmp_path / "same") as draft:
            draft.write_text(str(number) * 1000, encoding="utf-8")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set((tmp_path / "same").read_text(encoding="utf-8"))) == 1
    assert listed(tmp_path) == ["same"]
