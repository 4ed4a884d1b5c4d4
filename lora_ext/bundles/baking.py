"""Facts that fit trained weights, so that a packaged bundle runs them without a flag.

Models may have been trained with other knobs than the bundle's own; ``network.json`` beside
``model.pt`` says with which. MONAI Label, ``verify_net_in_out`` and ``ckpt_export`` pass no flags,
so the knobs become the bundle's own: in its configs, its metadata and its docs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lora_ext.bundles.generator import SOURCE, facts_of
from lora_ext.networks.config import KNOBS

FIXED = ("bundle", "kind", "version", "channel_def", "region_def", "num_channels", "num_regions")
WEIGHTS = "`models/` holds trained weights. Nothing is known of them beyond the figures above."


def baked_facts(name: str, network: dict[str, Any] | None, knobs: dict[str, Any]) -> dict[str, Any]:
    """Facts of a bundle to package, with the sizes of its weights and further knobs baked in.

    Args:
        name: the bundle's name.
        network: what ``network.json`` holds; ``None`` without trained weights.
        knobs: facts to replace, such as ``{"spacing": [1.0, 1.0, 2.0]}``.

    Returns:
        The merged facts. What was measured of the bundle stays out as soon as there are weights or
        knobs, since it is not true of them.

    Raises:
        ValueError: for an unknown knob, one of another JSON type, one that contradicts `network`,
            regions of another number than the network's outputs, or labels without a name.
    """
    fixed = sorted(set(knobs) & set(FIXED))
    if fixed:
        raise ValueError(f"{', '.join(fixed)}: follows from other knobs and cannot be set")
    packaged = {str(SOURCE / "packaged.json"): _read(SOURCE / "packaged.json")}
    plain = facts_of(name)
    sizes = {} if network is None else _sizes(network, plain) | {"weights": WEIGHTS}
    _check_agreement(sizes, knobs)
    layers = {**packaged, "network.json": sizes, "knobs": knobs}
    facts = facts_of(name, layers, measured=network is None and not knobs)
    _check_network(network or {}, facts, plain)
    _check_labels(facts)
    return facts


def _sizes(network: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The facts that a network's constructor arguments stand for."""
    others = ("in_channels", "out_channels", "encoder")  # lengths of facts, and no setting
    found = {KNOBS.get(k, k): v for k, v in network.items() if k not in others}
    return {k: float(v) if isinstance(facts.get(k), float) else v for k, v in found.items()}


def _check_agreement(sizes: dict[str, Any], knobs: dict[str, Any]) -> None:
    for key in sizes.keys() & knobs.keys():
        if sizes[key] != knobs[key]:
            raise ValueError(
                f"--{key} {knobs[key]} contradicts network.json, which has {sizes[key]}: "
                "the weights were trained with that"
            )


def _check_network(network: dict[str, Any], facts: dict[str, Any], plain: dict[str, Any]) -> None:
    for count, knob in (("in_channels", "modalities"), ("out_channels", "regions")):
        found = list(facts[knob])
        if network.get(count, len(found)) != len(found):
            raise ValueError(
                f"network.json has {count} {network[count]}, but the bundle has {len(found)} "
                f"{knob} {found}; pass the --{knob} that the weights were trained with"
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
