"""Tiny phantom tasks, made once for all tests of the bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_ext.data.phantoms import write_phantoms


@pytest.fixture(scope="session")
def tasks(tmp_path_factory) -> dict[str, Path]:
    """One phantom task of five labelled cases and one unlabelled case per data set."""
    folder = tmp_path_factory.mktemp("tasks")
    return {
        task: write_phantoms(task, folder / task, cases=5, size=(48, 48, 24), test_cases=1)
        for task in ("brats", "prostatex")
    }
