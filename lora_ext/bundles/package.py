"""A zip file whose bytes depend on its contents alone.

What goes into a packaged bundle: its own files, its weights, the package, the requirements.

One zip file that holds a bundle, its weights and the package that runs it.

The wheel of this checkout, for those who install the package.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lora_ext
from lora_ext.bundles import package as contents
from lora_ext.bundles.baking import baked_facts
from lora_ext.bundles.generator import RUN_TIME_FOLDERS, all_facts, facts_of, lay_out, render_bundle
from lora_ext.bundles.standalone import standalone, uses_package
from lora_ext.files import whole_file
from lora_ext.networks.config import KNOBS

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name
MODE = 0o100644 << 16  # an ordinary file that everyone may read
UNIX = 3
PACKED = (".pt", ".safetensors")  # weights hardly shrink and take long


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


METADATA = "configs/metadata.json"
WEIGHTS = ("model.pt", "network.json", "adapter.safetensors", "encoder.safetensors")
ADDED = ("lora_ext", "requirements.txt")  # what packaging itself adds to a bundle
VERSIONS = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}


def bundle_folder(bundle: str | os.PathLike[str]) -> Path | None:
    """Find a bundle's folder.

    Args:
        bundle: a bundle's folder, or the name of one in ``./bundles``.

    Returns:
        The folder; ``None`` for the name of a bundle that the generator can make.

    Raises:
        ValueError: if there is no such bundle.
    """
    for folder in (Path(bundle), Path("bundles", bundle)):
        if (folder / METADATA).is_file():
            return folder.resolve()
    if str(bundle) in all_facts():
        return None
    raise ValueError(f"{bundle}: neither the folder of a bundle nor one of {list(all_facts())}")


def weight_files(models: str | os.PathLike[str] | None, folder: Path | None) -> dict[str, Path]:
    """Find the trained files, by path in the bundle.

    Args:
        models: their folder; by default `folder`'s own ``models``.
        folder: the bundle's folder, if there is one.

    Returns:
        The files; none for a bundle that was not trained.

    Raises:
        ValueError: if `models` holds no ``model.pt``.
    """
    source = Path(models) if models is not None else folder and folder / "models"
    if source is None or not (source / "model.pt").is_file():
        if models is not None:
            raise ValueError(f"{models}: no model.pt there; give the ckpt_dir of a training run")
        return {}
    return {f"models/{n}": source / n for n in WEIGHTS if (source / n).is_file()}


def bundle_files(
    bundle: str | os.PathLike[str],
    folder: Path | None,
    weights: dict[str, Path],
    knobs: dict[str, Any],
) -> tuple[str, dict[str, bytes]]:
    """Name of a bundle and the contents of its own files, fitted to its weights.

    A bundle of the generator is rendered again with the knobs. A bundle whose configs were written
    otherwise is taken as it is.

    Args:
        bundle: as given by the user.
        folder: the bundle's folder, if there is one.
        weights: the trained files, by path in the bundle.
        knobs: settings to bake in.

    Raises:
        ValueError: for knobs that do not fit the weights or a bundle that takes none.
    """
    network, own, name = _network(weights), dict[str, bytes](), str(bundle)
    if folder is not None:
        own = dict(_own_files(folder))
        made = _generated_name(own)
        if made is None:
            _check_given_configs(folder, own, network or {}, knobs)
            return folder.name, own
        name = made
    rendered = render_bundle(baked_facts(name, network, knobs))
    return name, own | {path: text.encode() for path, text in rendered.items()}


def package_files() -> dict[str, Path]:
    """The files of `lora_ext`, by path in the bundle."""
    package = Path(lora_ext.__file__).parent
    files = (p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {f"{package.name}/{p.relative_to(package).as_posix()}": p for p in files}


def requirements(metadata: dict[str, Any]) -> bytes:
    """The packages that a bundle's metadata names, as a file for pip."""
    versions = {package: metadata[key] for package, key in VERSIONS.items()}
    versions |= metadata.get("required_packages_version", {})
    return "".join(f"{k}=={v}\n" for k, v in sorted(versions.items())).encode()


def _network(weights: dict[str, Path]) -> dict[str, Any] | None:
    if not weights:
        return None
    record = weights.get("models/network.json")
    return json.loads(record.read_text(encoding="utf-8")) if record else {}


def _own_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        left_out = parts[0] in (*RUN_TIME_FOLDERS, *ADDED) or "__pycache__" in parts
        if path.is_file() and not left_out and not any(part.startswith(".") for part in parts):
            yield "/".join(parts), path.read_bytes()


def _generated_name(own: dict[str, bytes]) -> str | None:
    """The name of the bundle whose configs these are, if the generator made them."""
    name = json.loads(own[METADATA]).get("name")
    if name not in all_facts():
        return None
    made = {k: v.encode() for k, v in render_bundle(facts_of(name)).items() if _is_config(k)}
    return name if {k: v for k, v in own.items() if _is_config(k)} == made else None


def _is_config(path: str) -> bool:
    return path.startswith("configs/")


def _check_given_configs(
    folder: Path, own: dict[str, bytes], network: dict[str, Any], knobs: dict[str, Any]
) -> None:
    """Refuse what could only be met by writing the configs anew."""
    why = f"{folder}: its configs are not as the generator makes them and are taken as they are"
    if knobs:
        raise ValueError(f"{why}, so no knob can be baked in; got {sorted(knobs)}")
    config = json.loads(own.get("configs/inference.json", b"{}"))
    for key, made in network.items():
        knob = KNOBS.get(key, key)
        found = config.get(knob, made)
        found = len(found) if key in ("in_channels", "out_channels") and knob in config else found
        if found != made:
            raise ValueError(f"{why}, but {knob} is {config[knob]} there and {made} in the weights")


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
    **knobs: Any,
) -> Packaged:
    """Write ``<bundle>_v<version>.zip``, which needs no installed `lora_ext`, and the wheel.

    Args:
        bundle: a bundle's folder, or a name: its folder in ``./bundles``, or where that is absent
            the bundle as the package's own source makes it.
        out: folder to write to.
        models: folder of the trained files; by default the bundle folder's own ``models``, if any.
        **knobs: settings to bake in, such as ``spacing=[1.0, 1.0, 2.0]``. The sizes of the weights
            need not be given: ``network.json`` says them.

    Returns:
        The files written.

    Raises:
        ValueError: for an unknown bundle, a folder without trained files, or knobs that are
            unknown, of another JSON type, or do not fit the weights.
    """
    folder = contents.bundle_folder(bundle)
    weights = contents.weight_files(models, folder)
    plain = json.loads(json.dumps(knobs))  # a tuple from the command line is a list
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


PACKAGE = Path(lora_ext.__file__).parent
FILES = ("pyproject.toml", "README.md", "LICENSE", "requirements.txt")
SOURCE_DATE = "315532800"  # 1980-01-01: the same sources give the same bytes


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
