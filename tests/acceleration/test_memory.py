"""Freed memory that is kept: seen in a process of its own, as it holds until the process ends."""

import subprocess
import sys

import pytest

from lora_ext.acceleration import keep_freed_memory

FAULTS = """
import resource, sys, torch
from lora_ext.acceleration import keep_freed_memory
if sys.argv[1] == "keep":
    sys.exit(77) if not keep_freed_memory("cpu") else None
elif sys.argv[1] == "back":
    keep_freed_memory("cpu"); keep_freed_memory("cpu", keep=False)
torch.zeros(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.zeros(2**24)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode):
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, mode], capture_output=True, encoding="utf-8"
    )
    if run.returncode == 77:
        pytest.skip("this C library is not glibc")
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def test_kept_memory_is_not_asked_for_again():
    assert page_faults("keep") < page_faults("plain") / 4


def test_defaults_come_back():
    assert page_faults("back") > page_faults("keep") * 4


def test_other_devices_change_nothing():
    assert keep_freed_memory("cuda") is False
    assert keep_freed_memory("meta") is False
