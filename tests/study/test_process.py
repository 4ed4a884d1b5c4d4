"""A child process, its log and its end."""

import os
import sys
import time

import pytest

from lora_ext.study import process
from lora_ext.study.commands import MONAI_BUNDLE

LOOP = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


@pytest.fixture(autouse=True)
def python_code(monkeypatch):
    """Children run the code that follows the command's first words."""
    monkeypatch.setattr(process, "LAUNCHER", (sys.executable, "-c"))
    monkeypatch.setattr(process, "POLL_SECONDS", 0.02)


def test_output_and_errors_go_to_the_log_and_whole_lines_to_the_watcher(tmp_path):
    code = (
        "import sys, time\nprint('be', end='', flush=True); time.sleep(0.2); print('gin')\n"
        "print('bad', file=sys.stderr); sys.exit(4)"
    )
    seen = []
    log = tmp_path / "new" / "x.log"
    assert process.run_process([*MONAI_BUNDLE, code], log, seen.append) == 4
    assert sorted(seen) == ["bad", "begin"]
    assert sorted(log.read_text().splitlines()) == ["bad", "begin"]


def test_a_log_is_begun_anew_or_gone_on_with_and_old_lines_are_not_told_again(tmp_path):
    log, seen = tmp_path / "x.log", []
    for append in (False, False, True):
        process.run_process([*MONAI_BUNDLE, "print('line')"], log, seen.append, append=append)
    assert log.read_text() == "line\n" * 2
    assert seen == ["line"] * 3


def test_an_interruption_ends_the_child(tmp_path):
    pids = []

    def interrupt(line):
        pids.append(int(line))
        raise KeyboardInterrupt

    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        process.run_process([*MONAI_BUNDLE, LOOP], tmp_path / "x.log", interrupt)
    assert time.perf_counter() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_child_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + LOOP

    def interrupt(line):
        raise KeyboardInterrupt

    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        process.run_process([*MONAI_BUNDLE, deaf], tmp_path / "x.log", interrupt)
    assert time.perf_counter() - began < 10
