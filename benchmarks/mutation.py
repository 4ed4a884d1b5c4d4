"""Change the code in one place at a time, and count how often a test notices.

Usage: python benchmarks/mutation.py FILE TESTS... [--sample 100] [--seed 0] [--limit 120]

    pip install cosmic-ray==8.7.0          once
    python benchmarks/mutation.py lora_ext/data/regions.py tests/data/test_regions.py

The changes are cosmic-ray's (another operator, number, truth value, condition, ...), a random
sample of them for a large file. Each is tried in a child forked off a process that has imported
torch and MONAI already, where the module's source is replaced while it is imported: no file is
written. What no test notices is printed as a diff, to be looked at: it is a test that is missing,
or a change that means the same.
"""

from __future__ import annotations

import difflib
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import fire
import hypothesis.extra.numpy  # noqa: F401
import pytest
import torch
from cosmic_ray import plugins
from cosmic_ray.mutating import MutationVisitor

MEANINGLESS = ("VariableReplacer", "VariableInserter", "NoOp", "RemoveDecorator")
# `|` between types is no operator on numbers
TYPES_ONLY = "ReplaceBinaryOperator_BitOr"


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module from other source."""

    def __init__(self, path: Path, source: str) -> None:
        self.path, self.source = path, source
        self.name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")

    def find_spec(self, name, path, target=None):
        """Claim the one module."""
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)
        return None

    def get_filename(self, fullname: str) -> str:
        """Return the path that tracebacks show."""
        return str(self.path)

    def get_data(self, path) -> bytes:
        """Return the other source."""
        return self.source.encode()


def mutations(source: str) -> Iterator[str]:
    """Yield every changed source."""
    for name in plugins.operator_names():
        kind = name.rpartition("/")[2]
        if kind.startswith((*MEANINGLESS, TYPES_ONLY)):
            continue
        for occurrence in count():
            code = MutationVisitor.mutate_code(source, plugins.get_operator(name)(), occurrence)
            if code is None:
                break
            yield code


def noticed(path: Path, source: str, tests: list[str], limit: int) -> bool:
    """Run the tests on a changed module in a child; whether they failed, or took too long."""
    child = os.fork()
    if child == 0:
        signal.alarm(limit)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        sys.meta_path.insert(0, Mutated(path, source))
        os._exit(int(pytest.main(["-xq", "--assert=plain", "-pno:cacheprovider", *tests])))
    return os.waitpid(child, 0)[1] != 0


def main(file: str, *tests: str, sample: int = 100, seed: int = 0, limit: int = 120) -> None:
    """Try a sample of the changes of one file.

    Args:
        file: a module's path, from the repository's root.
        *tests: the tests to run.
        sample: at most so many changes.
        seed: of the sample.
        limit: seconds that a change may take; one that takes longer counts as noticed.
    """
    torch.set_num_threads(1)
    path = Path(file)
    source = path.read_text(encoding="utf-8")
    if noticed(path, source, list(tests), limit):
        raise SystemExit(f"{file}: the tests fail on the unchanged code")
    every = list(dict.fromkeys(mutations(source)))
    chosen = random.Random(seed).sample(every, min(sample, len(every)))
    survivors = [code for code in chosen if not noticed(path, code, list(tests), limit)]
    for code in survivors:
        lines = difflib.unified_diff(source.splitlines(), code.splitlines(), lineterm="", n=0)
        print("\n".join(list(lines)[2:]), flush=True)
    noticed_ = len(chosen) - len(survivors)
    print(f"{file}: {noticed_} of {len(chosen)} changes noticed ({len(every)} in all)")


if __name__ == "__main__":
    fire.Fire(main)
