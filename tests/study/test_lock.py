"""One study at a time per folder."""

import subprocess
import sys

import pytest

from lora_ext.study.lock import only_study

pytest.importorskip("fcntl")


def test_a_second_study_in_the_same_folder_is_refused_until_the_first_ends(tmp_path):
    with (
        only_study(tmp_path / "R"),
        pytest.raises(ValueError, match="another study"),
        only_study(tmp_path / "R"),
    ):
        pass
    with only_study(tmp_path / "R"), only_study(tmp_path / "other"):
        pass


def test_a_child_that_outlives_its_study_keeps_the_folder(tmp_path):
    with only_study(tmp_path) as keep_open:
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=keep_open
        )
    with pytest.raises(ValueError, match="that it left behind"), only_study(tmp_path):
        pass
    child.communicate(b"\n")
    with only_study(tmp_path):
        pass
