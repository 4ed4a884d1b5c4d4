"""Verify every bundle as the Model Zoo does, offline and at the bundles' own sizes.

Usage: ci/verify_bundles [--bundle NAME[,NAME]] [--root bundles]

All bundles that the generator makes must be below the root, and no others. Each is verified on a
copy in a temporary folder, with freshly drawn weights. Exits with 1 if any check fails.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import fire
from verification.report import table, verify

from lora_ext.bundles.generator import all_facts

QUIET = ("monai.apps", "monai.bundle.scripts", "monai.bundle.workflows", "lora_ext", "ignite")


def check_set(root: Path) -> list[str]:
    """The bundles below a folder, which must be those that the generator makes.

    Raises:
        ValueError: if one is missing, or has no source.
    """
    found = {path.name for path in root.iterdir() if path.is_dir()}
    wanted = set(all_facts())
    if found != wanted:
        raise ValueError(
            f"{root}: missing {sorted(wanted - found)}, without a source {sorted(found - wanted)}"
        )
    return list(all_facts())


def main(bundle: Any = None, root: str = "bundles") -> None:
    """Verify bundles, a line per check, and a table at the end.

    Args:
        bundle: one name or several, with commas; by default all.
        root: the folder of bundles.
    """
    names = check_set(Path(root))
    chosen = names if bundle is None else [bundle] if isinstance(bundle, str) else list(bundle)
    if unknown := set(chosen) - set(names):
        raise ValueError(f"--bundle {sorted(unknown)}; allowed are {names}")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        results = [r for name in chosen for r in verify(Path(root) / name, Path(folder))]
    failed = [result for result in results if result.problem]
    seconds = time.perf_counter() - start
    print(f"\n{table(results)}\n")
    print(f"{len(chosen)} bundles, {len(results)} checks, {len(failed)} failed, {seconds:.0f} s")
    if failed:
        sys.exit(1)


def quiet() -> None:
    """Leave the console to the checks' own lines."""
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="parsing config_file")  # MONAI, at every config
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch 2.13 on torch.jit


if __name__ == "__main__":
    quiet()
    fire.Fire(main)
