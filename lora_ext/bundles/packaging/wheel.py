"""The wheel of this checkout, for those who install the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import lora_ext
from lora_ext.files import whole_file

PACKAGE = Path(lora_ext.__file__).parent
FILES = ("pyproject.toml", "README.md", "LICENSE", "requirements.txt")
EPOCH = "315532800"  # 1980-01-01: the same sources give the same bytes


def build_wheel(out: Path) -> Path | None:
    """Build the wheel from the checkout that this package runs from, without a network.

    Args:
        out: folder to write it to.

    Returns:
        The wheel; ``None`` where the package does not run from a checkout.

    Raises:
        ValueError: if the build fails; the message ends with pip's last line.
    """
    checkout = PACKAGE.parent
    if not all((checkout / name).is_file() for name in FILES):
        return None
    with tempfile.TemporaryDirectory() as folder:
        # of a copy: setuptools leaves build folders, and packs what older ones hold
        source = Path(folder, "source")
        shutil.copytree(
            PACKAGE, source / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")
        )
        for name in FILES:
            shutil.copy(checkout / name, source)
        built = _build(source, Path(folder, "built"))
        with whole_file(out / built.name) as draft:
            shutil.copy(built, draft)
    return out / built.name


def _build(source: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--disable-pip-version-check", "--wheel-dir", str(out), str(source)]
    environment = os.environ | {"SOURCE_DATE_EPOCH": EPOCH}
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", check=False, env=environment
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise ValueError(f"the wheel could not be built with {sys.executable}: {lines[-1]}")
    return next(out.glob("*.whl"))
