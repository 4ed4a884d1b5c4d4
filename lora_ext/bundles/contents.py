"""What goes into a packaged bundle: its own files, fitted to its weights, and the package.

Models may have been trained with other settings than the bundle's own; ``network.json`` beside
``model.pt`` says with which. MONAI Label, ``verify_net_in_out`` and ``ckpt_export`` pass no flags,
so these settings become the bundle's own: in its configs, its metadata and its docs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lora_ext
from lora_ext.bundles.generator import RUN_TIME_FOLDERS, SOURCE, all_facts, facts_of, render_bundle
from lora_ext.networks.config import FLAGS

METADATA = "configs/metadata.json"
WEIGHTS = ("model.pt", "network.json", "adapter.safetensors", "encoder.safetensors")
ADDED = ("lora_ext", "requirements.txt")  # what packaging itself adds to a bundle
VERSIONS = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
FIXED = ("bundle", "kind", "version", "channel_def", "region_def", "num_channels", "num_regions")
TRAINED = "`models/` holds trained weights. Nothing is known of them beyond the figures above."


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
    settings: dict[str, Any],
) -> tuple[str, dict[str, bytes]]:
    """Name of a bundle and the contents of its own files, fitted to its weights.

    A bundle of the generator is rendered again with the settings. A bundle whose configs were
    written otherwise is taken as it is.

    Args:
        bundle: as given by the user.
        folder: the bundle's folder, if there is one.
        weights: the trained files, by path in the bundle.
        settings: settings to bake in.

    Raises:
        ValueError: for settings that do not fit the weights or a bundle that takes none.
    """
    network, own, name = _network(weights), dict[str, bytes](), str(bundle)
    if folder is not None:
        own = dict(_own_files(folder))
        made = _generated_name(own)
        if made is None:
            _check_given_configs(folder, own, network or {}, settings)
            return folder.name, own
        name = made
    rendered = render_bundle(baked_facts(name, network, settings))
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
    folder: Path, own: dict[str, bytes], network: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Refuse what could only be met by writing the configs anew."""
    why = f"{folder}: its configs are not as the generator makes them and are taken as they are"
    if settings:
        raise ValueError(f"{why}, so no setting can be baked in; got {sorted(settings)}")
    config = json.loads(own.get("configs/inference.json", b"{}"))
    for key, made in network.items():
        setting = FLAGS.get(key, key)
        found = config.get(setting, made)
        found = (
            len(found) if key in ("in_channels", "out_channels") and setting in config else found
        )
        if found != made:
            raise ValueError(
                f"{why}, but {setting} is {config[setting]} there and {made} in the weights"
            )


def baked_facts(
    name: str, network: dict[str, Any] | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Facts of a bundle to package, with the sizes of its weights and further settings baked in.

    Args:
        name: the bundle's name.
        network: what ``network.json`` holds; ``None`` without trained weights.
        settings: facts to replace, such as ``{"spacing": [1.0, 1.0, 2.0]}``.

    Returns:
        The merged facts. What was measured of the bundle stays out as soon as there are weights or
        settings, since it is not true of them.

    Raises:
        ValueError: for an unknown setting, one of another JSON type, one that contradicts
            `network`, regions of another number than its outputs, or labels without a name.
    """
    fixed = sorted(set(settings) & set(FIXED))
    if fixed:
        raise ValueError(f"{', '.join(fixed)}: follows from other settings and cannot be set")
    packaged = {str(SOURCE / "packaged.json"): _read(SOURCE / "packaged.json")}
    plain = facts_of(name)
    sizes = {} if network is None else _sizes(network, plain) | {"weights": TRAINED}
    _check_agreement(sizes, settings)
    layers = {**packaged, "network.json": sizes, "settings": settings}
    facts = facts_of(name, layers, measured=network is None and not settings)
    _check_network(network or {}, facts, plain)
    _check_labels(facts)
    return facts


def _sizes(network: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The facts that a network's constructor arguments stand for."""
    others = ("in_channels", "out_channels", "encoder")  # lengths of facts, and no setting
    found = {FLAGS.get(k, k): v for k, v in network.items() if k not in others}
    return {k: float(v) if isinstance(facts.get(k), float) else v for k, v in found.items()}


def _check_agreement(sizes: dict[str, Any], settings: dict[str, Any]) -> None:
    for key in sizes.keys() & settings.keys():
        if sizes[key] != settings[key]:
            raise ValueError(
                f"--{key} {settings[key]} contradicts network.json, which has {sizes[key]}: "
                "the weights were trained with that"
            )


def _check_network(network: dict[str, Any], facts: dict[str, Any], plain: dict[str, Any]) -> None:
    for count, setting in (("in_channels", "modalities"), ("out_channels", "regions")):
        found = list(facts[setting])
        if network.get(count, len(found)) != len(found):
            raise ValueError(
                f"network.json has {count} {network[count]}, but the bundle has {len(found)} "
                f"{setting} {found}; pass the --{setting} that the weights were trained with"
            )
    if facts["regime"] != plain["regime"]:
        raise ValueError(
            f"network.json has regime {facts['regime']!r}, but {facts['bundle']} is for regime "
            f"{plain['regime']!r}; package the weights with a bundle of their regime"
        )


def _check_labels(facts: dict[str, Any]) -> None:
    """Refuse regions of labels that the metadata would have no name for."""
    unnamed = {str(label) for labels in facts["regions"].values() for label in labels}
    unnamed -= facts["labels"].keys()
    if unnamed:
        raise ValueError(
            f"regions {facts['regions']} have labels {sorted(unnamed)} that are not among "
            f"{facts['labels']}; pass the --labels of your data, such as \"{{'1': 'tumour'}}\""
        )


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
