"""What goes into a packaged bundle: its own files, its weights, the package, the requirements."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lora_ext
from lora_ext.bundles.generator import RUN_TIME_FOLDERS, all_facts, facts_of, render_bundle
from lora_ext.bundles.packaging.baking import baked_facts
from lora_ext.record import KNOBS

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
