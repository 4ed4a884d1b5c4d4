"""What goes into a packaged bundle: its own files, fitted to its weights, and the package.

Models may have been trained with other settings than the bundle's own; their record says with
which. These settings become the bundle's own: in its configs, its metadata and its docs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lora_ext
from lora_ext.bundles.generator import (
    PLAN,
    REGIMES,
    RUN_TIME_FOLDERS,
    SOURCE,
    all_facts,
    facts_of,
    render_bundle,
)
from lora_ext.bundles.settings import SETTINGS, check_values
from lora_ext.weights import recorded_settings

METADATA = "configs/metadata.json"
WEIGHTS = ("model.pt", "network.json", "adapter.safetensors", "encoder.safetensors")
ADDED = ("lora_ext", "requirements.txt")  # what packaging itself adds to a bundle
VERSIONS = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
FIXED = ("bundle", "kind", "version", "channel_def", "region_def", "num_channels", "num_regions")
COUNTS = {"in_channels": "modalities", "out_channels": "regions"}
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
    trained, own, name, plan = _record(weights), dict[str, bytes](), str(bundle), None
    if folder is not None:
        own = dict(_own_files(folder))
        plan = _own_plan(own)
        made = _generated_name(own, plan)
        if made is None:
            _check_given_configs(folder, own, trained or {}, settings)
            return folder.name, own
        name = made
    rendered = render_bundle(baked_facts(name, trained, settings, plan))
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


def _record(weights: dict[str, Path]) -> dict[str, Any] | None:
    """What the weights say of their settings, checked; ``None`` without weights."""
    if not weights:
        return None
    model = weights["models/model.pt"]
    names = [setting.name for setting in SETTINGS if setting.recorded]
    found = recorded_settings(model.parent, [*names, *COUNTS])
    check_values(found, str(model))  # these become a part of configs, which are code
    return found


def _own_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        left_out = parts[0] in (*RUN_TIME_FOLDERS, *ADDED) or "__pycache__" in parts
        if path.is_file() and not left_out and not any(part.startswith(".") for part in parts):
            yield "/".join(parts), path.read_bytes()


def _own_plan(own: dict[str, bytes]) -> dict[str, Any] | None:
    """The plan of a bundle that `new_bundle` made."""
    plan = json.loads(own[PLAN]) if PLAN in own else None
    return plan if isinstance(plan, dict) and plan.get("regime") in REGIMES else None


def _generated_name(own: dict[str, bytes], plan: dict[str, Any] | None) -> str | None:
    """The name of the bundle whose configs these are, if the generator made them."""
    name = json.loads(own[METADATA]).get("name")
    if plan is None and name not in all_facts():
        return None
    rendered = render_bundle(facts_of(name, plan=plan))
    made = {path: text.encode() for path, text in rendered.items() if _is_config(path)}
    return name if {k: v for k, v in own.items() if _is_config(k)} == made else None


def _is_config(path: str) -> bool:
    return path.startswith("configs/")


def _check_given_configs(
    folder: Path, own: dict[str, bytes], trained: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Refuse what could only be met by writing the configs anew."""
    why = f"{folder}: its configs are not as the generator makes them and are taken as they are"
    if settings:
        raise ValueError(f"{why}, so no setting can be baked in; got {sorted(settings)}")
    config = json.loads(own.get("configs/train.json", b"{}"))
    config |= config.get("encoder_sizes", {}).get("default", {})
    for name, made in trained.items():
        if name not in COUNTS and config.get(name, made) != made:
            raise ValueError(
                f"{why}, but {name} is {config[name]} in train.json and the weights were trained "
                f"with {made}"
            )


def baked_facts(
    name: str,
    trained: dict[str, Any] | None,
    settings: dict[str, Any],
    plan: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Facts of a bundle to package, with the settings of its weights and further ones baked in.

    Args:
        name: the bundle's name.
        trained: the settings that the weights were trained with, and the `COUNTS` of their network;
            ``None`` without weights.
        settings: facts to replace, such as ``{"spacing": [1.0, 1.0, 2.0]}``.
        plan: as for `facts_of`.

    Returns:
        The merged facts. What was measured of the bundle stays out as soon as there are weights or
        settings, since it is not true of them.

    Raises:
        ValueError: for an unknown setting, one of another JSON type or out of range, one that
            contradicts `trained`, another regime, or labels without a name.
    """
    fixed = sorted(set(settings) & set(FIXED))
    if fixed:
        raise ValueError(f"{', '.join(fixed)}: follows from other settings and cannot be set")
    check_values(settings)
    packaged = {str(SOURCE / "packaged.json"): _read(SOURCE / "packaged.json")}
    plain = facts_of(name, plan=plan)
    sizes = {} if trained is None else _as_facts(trained, plain) | {"weights": TRAINED}
    _check_agreement(sizes, settings, plain)
    layers = {**packaged, "the weights": sizes, "settings": settings}
    facts = facts_of(name, layers, measured=trained is None and not settings, plan=plan)
    _check_counts(trained or {}, facts)
    _check_labels(facts)
    return facts


def _as_facts(trained: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Settings in the JSON types of a bundle's facts: a whole number may be a float there."""
    settings = {k: v for k, v in trained.items() if k not in COUNTS}
    return {k: float(v) if isinstance(facts.get(k), float) else v for k, v in settings.items()}


def _check_counts(trained: dict[str, Any], facts: dict[str, Any]) -> None:
    """Refuse names of another number than the network has, where its record has no names."""
    for count, setting in COUNTS.items():
        found = list(facts[setting])
        if trained.get(count, len(found)) != len(found):
            raise ValueError(
                f"the weights have {count} {trained[count]}, but the bundle has {len(found)} "
                f"{setting} {found}; pass the --{setting} that the weights were trained with"
            )


def _check_agreement(
    sizes: dict[str, Any], settings: dict[str, Any], plain: dict[str, Any]
) -> None:
    for key in sizes.keys() & settings.keys():
        if sizes[key] != settings[key]:
            raise ValueError(
                f"--{key} {settings[key]} contradicts the model's record, which has {sizes[key]}: "
                "leave the flag out"
            )
    regime = sizes.get("regime", plain["regime"])
    if regime != plain["regime"]:
        raise ValueError(
            f"the weights are of regime {regime!r}, but {plain['bundle']} is for regime "
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
