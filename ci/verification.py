"""What the zoo's ``ci/verify_bundle.py`` asks of a bundle, in its order, and whether it is true.

Beyond the zoo: both workflows' properties are checked, and the exported TorchScript is loaded and
compared with the network, in its values and in the shape that the metadata states.

Every check takes a `Subject`, a copy of a bundle with weights, phantoms and the schema in place; it
returns a detail worth printing, or no text, and raises if the bundle is wrong.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import (
    ConfigParser,
    ConfigWorkflow,
    ckpt_export,
    verify_metadata,
    verify_net_in_out,
)

from lora_ext.bundles.generator import PLAN
from lora_ext.networks.lora import ChannelLoRALinear
from lora_ext.phantoms import write_phantoms
from lora_ext.weights import save_model

SCHEMA = Path(__file__).parents[1] / "tests" / "bundles" / "meta_schema.json"
IGNORED = shutil.ignore_patterns("models", "eval", "__pycache__")


@dataclass(frozen=True)
class Subject:
    """A bundle to verify.

    Attributes:
        folder: the copy, in which checks may write.
        data: a small task for its train workflow.
    """

    folder: Path
    data: Path

    @property
    def metadata(self) -> dict[str, Any]:
        """The content of ``metadata.json``."""
        return json.loads((self.folder / "configs" / "metadata.json").read_text(encoding="utf-8"))

    def config(self, name: str) -> str:
        """Return the path of one of its configs."""
        return str(self.folder / "configs" / name)

    def network(self) -> Any:
        """Build the network of its inference config, with new weights."""
        parser = ConfigParser()
        parser.read_config(self.config("inference.json"))
        parser["bundle_root"] = str(self.folder)  # a config read by hand does not know its place
        return parser.get_parsed_content("network_def")


def prepare(bundle: Path, workplace: Path) -> Subject:
    """Copy a bundle, and put beside it what is not committed.

    Args:
        bundle: the bundle's folder; its ``models`` and ``eval`` are not copied.
        workplace: folder for the copy and its phantoms.

    Returns:
        The copy with freshly drawn weights in ``models/model.pt``, and with the schema where
        MONAI would download it to.
    """
    planned = (bundle / PLAN).is_file()  # a bundle that `new_bundle` made for other data
    task = "prostatex" if bundle.name.startswith("prostatex") else "brats"
    data = (
        write_noise(bundle, workplace / "data")
        if planned
        else write_phantoms(task, workplace / "data", cases=5, size=(48, 48, 24), test_cases=1)
    )
    subject = Subject(workplace / bundle.name, data)
    shutil.copytree(bundle, subject.folder, ignore=IGNORED)
    (subject.folder / "eval").mkdir()
    shutil.copy(SCHEMA, subject.folder / "eval" / "schema.json")
    torch.manual_seed(0)
    network = subject.network()
    for layer in network.modules():
        if isinstance(layer, ChannelLoRALinear):
            torch.nn.init.normal_(layer.lora_B, std=0.02)  # zero at the start: without effect
    save_model(network, subject.folder / "models" / "model.pt")
    return subject


def write_noise(bundle: Path, folder: Path) -> Path:
    """Write a task of noise with the channels and labels that a bundle's metadata state.

    Args:
        bundle: the bundle's folder.
        folder: folder to write.

    Returns:
        `folder`.
    """
    text = (bundle / "configs" / "metadata.json").read_text(encoding="utf-8")
    tensors = json.loads(text)["network_data_format"]
    channels = tensors["inputs"]["image"]["channel_def"]
    labels = tensors["outputs"]["pred"]["channel_def"]
    random, cases = np.random.default_rng(0), [f"noise_{number}" for number in range(5)]
    values = np.array([int(value) for value in labels], np.uint8)
    for case in cases:
        image = random.random((48, 48, 24, len(channels)), dtype=np.float32)
        label = random.choice(values, (48, 48, 24))
        for part, voxels in (("imagesTr", image), ("labelsTr", label)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / part / f"{case}.nii.gz")
    listed = [
        {
            key: f"{part}/{case}.nii.gz"
            for key, part in (("image", "imagesTr"), ("label", "labelsTr"))
        }
        for case in cases
    ]
    content = {"modality": channels, "labels": labels, "training": listed}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


NECESSARY = ("configs/metadata.json", "LICENSE")
PREFERRED = ("models/model.pt", "configs/inference.json")
TOLERANCE = 1e-5  # of the largest output


def files(subject: Subject) -> str:
    """Check that the necessary and the preferred files are there."""
    missing = [n for n in (*NECESSARY, *PREFERRED) if not (subject.folder / n).is_file()]
    if missing:
        raise ValueError(f"expected {', '.join(missing)} in the bundle, found no such file")
    return ""


def version(subject: Subject) -> str:
    """Check that the version is in the changelog."""
    metadata = subject.metadata
    for key in ("version", "changelog"):
        if key not in metadata:
            raise ValueError(f"configs/metadata.json: expected {key!r}, found no such key")
    if metadata["version"] not in metadata["changelog"]:
        raise ValueError(
            f"configs/metadata.json: expected version {metadata['version']} in the changelog, got "
            f"{list(metadata['changelog'])}"
        )
    return str(metadata["version"])


def metadata(subject: Subject) -> str:
    """Check the metadata against the zoo's schema."""
    schema = subject.folder / "eval" / "schema.json"
    verify_metadata(
        meta_file=subject.config("metadata.json"),
        filepath=schema,  # there already, so nothing is downloaded
        hash_val=sha256(SCHEMA.read_bytes()).hexdigest(),
        hash_type="sha256",
    )
    return ""


def properties(subject: Subject) -> str:
    """Check that both workflows start and have every property that MONAI asks for."""
    common: dict[str, Any] = {
        "logging_file": False,
        "dataset_dir": str(subject.data),
        "output_dir": str(subject.folder / "eval"),
        "num_workers": 0,
    }
    train = ConfigParser.load_config_file(subject.config("train.json"))
    random = {"pretrained": "none"} if "pretrained" in train else {}
    settings = {**common, **random, "cache_rate": 0.0}
    _check_workflow(ConfigWorkflow(subject.config("train.json"), **settings))
    infer = ConfigWorkflow(subject.config("inference.json"), workflow_type="infer", **common)
    _check_workflow(infer)
    return ""


def shapes(subject: Subject) -> str:
    """Check that the network takes and gives what the metadata state."""
    verify_net_in_out(
        net_id="network_def",
        meta_file=subject.config("metadata.json"),
        config_file=subject.config("inference.json"),
        bundle_root=str(subject.folder),
        device="meta",  # shapes and types without arithmetic; `torchscript` computes values
    )
    return ""


def torchscript(subject: Subject) -> str:
    """Export the weights to TorchScript, and check that it computes what the network does."""
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
        raise ValueError(f"expected an output of shape {stated}, got {list(found.shape)}")
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= TOLERANCE:
        raise ValueError(
            f"expected TorchScript to differ from the network by at most {TOLERANCE} of its "
            f"largest output, got {difference:.1e}"
        )
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
        raise ValueError(
            f"expected all properties that MONAI asks for, got others or none: {wrong}"
        )


def _shape(tensor: dict[str, Any]) -> list[int]:
    return [1, tensor["num_channels"], *tensor["spatial_shape"]]
