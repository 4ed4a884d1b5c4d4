"""A bundle as one zip file that needs no installed `lora_ext`, and the wheel beside it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lora_ext
from lora_ext.bundles import contents
from lora_ext.bundles.generator import lay_out
from lora_ext.bundles.standalone import standalone, uses_package
from lora_ext.files import whole_file

# The same contents give the same bytes: entries carry the first moment that a zip file can name.
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name
MODE = 0o100644 << 16  # an ordinary file that everyone may read
UNIX = 3
PACKED = (".pt", ".safetensors")  # weights hardly shrink and take long
PACKAGE = Path(lora_ext.__file__).parent
FILES = ("pyproject.toml", "README.md", "LICENSE", "requirements.txt")
SOURCE_DATE = "315532800"  # 1980-01-01: the same sources give the same bytes


@dataclass(frozen=True)
class Packaged:
    """What `package_bundle` wrote.

    Attributes:
        archive: the zip file.
        wheel: the wheel beside it; ``None`` where there is no checkout to build it from.
        trained: whether the archive holds trained weights.
    """

    archive: Path
    wheel: Path | None
    trained: bool


def package_bundle(
    bundle: str | os.PathLike[str],
    out: str | os.PathLike[str],
    models: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Packaged:
    """Write ``<bundle>_v<version>.zip``, which needs no installed `lora_ext`, and the wheel.

    Args:
        bundle: a bundle's folder, or a name: its folder in ``./bundles``, or where that is absent
            the bundle as the package's own source makes it.
        out: folder to write to.
        models: folder of the trained files; by default the bundle folder's own ``models``, if any.
        **settings: settings to bake in, such as ``spacing=[1.0, 1.0, 2.0]``. The sizes of the
            weights need not be given: ``network.json`` says them.

    Returns:
        The files written.

    Raises:
        ValueError: for an unknown bundle, a folder without trained files, or settings that are
            unknown, of another JSON type, or do not fit the weights.
    """
    folder = contents.bundle_folder(bundle)
    weights = contents.weight_files(models, folder)
    plain = json.loads(json.dumps(settings))  # a tuple from the command line is a list
    name, files = contents.bundle_files(bundle, folder, weights, plain)
    metadata = json.loads(files[contents.METADATA])
    entries: dict[str, bytes | Path] = {
        **_stand_alone(files),
        **weights,
        **contents.package_files(),
        "requirements.txt": contents.requirements(metadata),
    }
    archive = Path(out) / f"{name}_v{metadata['version']}.zip"
    write_archive(archive, {f"{name}/{path}": content for path, content in entries.items()})
    return Packaged(archive, build_wheel(Path(out)), bool(weights))


def _stand_alone(files: dict[str, bytes]) -> dict[str, bytes]:
    """Make the configs of a bundle find the package, if they use it."""
    paths = [k for k in files if k.startswith("configs/") and k.endswith(".json")]
    configs = {path: json.loads(files[path]) for path in paths if path != contents.METADATA}
    if not any(uses_package(config) for config in configs.values()):
        return files
    new = {path: lay_out(standalone(config, path)) + "\n" for path, config in configs.items()}
    return files | {path: text.encode() for path, text in new.items()}


def write_archive(path: str | os.PathLike[str], entries: Mapping[str, bytes | Path]) -> None:
    """Write a zip file, whole or not at all; the same entries give the same bytes.

    Args:
        path: the file to write.
        entries: contents, or a file that holds them, by name in the archive.
    """
    with whole_file(path) as draft, zipfile.ZipFile(draft, "w") as archive:
        for name, content in sorted(entries.items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = UNIX, MODE
            if not name.endswith(PACKED):
                entry.compress_type = zipfile.ZIP_DEFLATED
            with _opened(content) as source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)


def _opened(content: bytes | Path) -> io.BufferedIOBase:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


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
    environment = os.environ | {"SOURCE_DATE_EPOCH": SOURCE_DATE}
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", check=False, env=environment
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise ValueError(f"the wheel could not be built with {sys.executable}: {lines[-1]}")
    return next(out.glob("*.whl"))
