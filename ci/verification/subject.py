"""A copy of a bundle that is ready to be verified: weights, phantoms and the schema in place."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from lora_ext.networks.lora import ChannelLoRALinear
from lora_ext.phantoms import write_phantoms
from lora_ext.weights.model import save_model

SCHEMA = Path(__file__).parents[2] / "tests" / "bundles" / "meta_schema.json"
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
        """Its ``metadata.json``."""
        return json.loads((self.folder / "configs" / "metadata.json").read_text(encoding="utf-8"))

    def config(self, name: str) -> str:
        """Path of one of its configs."""
        return str(self.folder / "configs" / name)

    def network(self) -> Any:
        """The network of its inference config, with new weights."""
        parser = ConfigParser()
        parser.read_config(self.config("inference.json"))
        return parser.get_parsed_content("network_def")


def prepare(bundle: Path, workplace: Path) -> Subject:
    """Copy a bundle, and put beside it what is not committed.

    Args:
        bundle: the bundle's folder; its ``models`` and ``eval`` are not copied.
        workplace: folder for the copy.

    Returns:
        The copy with freshly drawn weights in ``models/model.pt``, and with the schema where
        MONAI would download it to.
    """
    subject = Subject(workplace / bundle.name, _phantoms(_dataset(bundle.name), workplace))
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


def _dataset(name: str) -> str:
    return "prostatex" if name.startswith("prostatex") else "brats"


@cache
def _phantoms(task: str, workplace: Path) -> Path:
    return write_phantoms(
        task, workplace / f"phantom_{task}", cases=5, size=(48, 48, 24), test_cases=1
    )
