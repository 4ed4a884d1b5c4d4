"""What the zoo's ``ci/verify_bundle.py`` asks of a bundle, in its order, and whether it is true.

Beyond the zoo: both workflows' properties are checked, and the exported TorchScript is loaded and
compared with the network, in its values and in the shape that the metadata states.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import torch
from monai.bundle import (
    ConfigParser,
    ConfigWorkflow,
    ckpt_export,
    verify_metadata,
    verify_net_in_out,
)

from verification.subject import SCHEMA, Subject

NECESSARY = ("configs/metadata.json", "LICENSE")
PREFERRED = ("models/model.pt", "configs/inference.json")
TOLERANCE = 1e-5  # of the largest output


def files(subject: Subject) -> str:
    """The necessary and the preferred files are there."""
    missing = [n for n in (*NECESSARY, *PREFERRED) if not (subject.folder / n).is_file()]
    if missing:
        raise ValueError(f"{', '.join(missing)}: missing")
    return ""


def version(subject: Subject) -> str:
    """The version is in the changelog."""
    metadata = subject.metadata
    for key in ("version", "changelog"):
        if key not in metadata:
            raise ValueError(f"configs/metadata.json: {key!r} is missing")
    if metadata["version"] not in metadata["changelog"]:
        raise ValueError(
            f"configs/metadata.json: version {metadata['version']} is not in the changelog, which "
            f"has {list(metadata['changelog'])}"
        )
    return str(metadata["version"])


def metadata(subject: Subject) -> str:
    """The metadata fit the zoo's schema."""
    schema = subject.folder / "eval" / "schema.json"
    verify_metadata(
        meta_file=subject.config("metadata.json"),
        filepath=schema,  # there already, so nothing is downloaded
        hash_val=sha256(SCHEMA.read_bytes()).hexdigest(),
        hash_type="sha256",
    )
    return ""


def properties(subject: Subject) -> str:
    """The train and the inference workflow start and have every property that MONAI asks for."""
    common: dict[str, Any] = {
        "logging_file": False,
        "dataset_dir": str(subject.data),
        "output_dir": str(subject.folder / "eval"),
        "num_workers": 0,
        "cache_rate": 0.0,
    }
    train = ConfigParser.load_config_file(subject.config("train.json"))
    random = {"pretrained": "none"} if "pretrained" in train else {}
    _check_workflow(ConfigWorkflow(subject.config("train.json"), **common, **random))
    infer = ConfigWorkflow(subject.config("inference.json"), workflow_type="infer", **common)
    _check_workflow(infer)
    return ""


def shapes(subject: Subject) -> str:
    """The network takes and gives what the metadata state."""
    verify_net_in_out(
        net_id="network_def",
        meta_file=subject.config("metadata.json"),
        config_file=subject.config("inference.json"),
        bundle_root=str(subject.folder),
    )
    return ""


def torchscript(subject: Subject) -> str:
    """The weights export to TorchScript, which computes what the network computes."""
    exported = subject.folder / "models" / "verify_model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(subject.folder / "models" / "model.pt"),
        meta_file=subject.config("metadata.json"),
        config_file=subject.config("inference.json"),
        bundle_root=str(subject.folder),
    )
    network = subject.network().eval()
    state = torch.load(subject.folder / "models" / "model.pt", weights_only=True)
    network.load_state_dict(state, strict=True)
    tensors = subject.metadata["network_data_format"]
    image = torch.rand(_shape(tensors["inputs"]["image"]))
    with torch.no_grad():
        expected, found = network(image), torch.jit.load(exported)(image)
    stated = _shape(tensors["outputs"]["pred"])
    if list(found.shape) != stated:
        raise ValueError(f"the output has shape {list(found.shape)}; the metadata state {stated}")
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= TOLERANCE:
        raise ValueError(f"TorchScript differs from the network by {difference:.1e} of its output")
    return f"differs by {difference:.0e} of the output"


CHECKS: dict[str, Callable[[Subject], str]] = {
    check.__name__: check for check in (files, version, metadata, properties, shapes, torchscript)
}


def _check_workflow(workflow: ConfigWorkflow) -> None:
    workflow.initialize()
    wrong = workflow.check_properties()
    del workflow
    gc.collect()  # its parts refer to each other and hold a network
    if wrong:
        raise ValueError(f"properties that are missing or have another id: {wrong}")


def _shape(tensor: dict[str, Any]) -> list[int]:
    return [1, tensor["num_channels"], *tensor["spatial_shape"]]
