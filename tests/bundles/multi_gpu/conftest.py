"""Bundles in several processes, each started as a user starts it: through torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lora_ext.phantoms import write_phantoms

HERE = Path(__file__).parent
ENCODER = {"roi_size": [32, 32, 16], "hidden_size": 24, "mlp_dim": 32, "num_layers": 4}
TINY = {
    "segmentation": {"feature_size": 4, "sw_overlap": 0.0, "pretrained": "none"},
    "pretraining": {"decoder_hidden_size": 12, "decoder_mlp_dim": 16, "decoder_num_layers": 1,
                    "decoder_num_heads": 2},
}  # fmt: skip
SHORT = {"num_heads": 2, "num_workers": 0, "epochs": 2, "val_interval": 1, "crops_per_case": 1}
# Phantoms are as large as the crop, so with these every process sees the cases as they are. amp
# off: float32, since equality to rounding is asked for.
INERT = {
    "segmentation": {f"train#random_transforms#{i}#prob": 0.0 for i in (3, 4, 5)},
    "pretraining": {"train#random_transforms#1#prob": 0.0},
}


@dataclass
class Launched:
    """A run that has ended."""

    done: subprocess.CompletedProcess
    folder: Path

    def rank(self, number):
        """What the probe of one process saw."""
        return torch.load(self.folder / "eval" / f"rank{number}.pt", weights_only=True)

    def writes(self, number):
        """What one process wrote, see `sitecustomize.py`."""
        return (self.folder / "writes" / f"{number}.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="session")
def nine_cases(tmp_path_factory):
    """A phantom task as large as one crop: with three folds, six cases train and three validate."""
    folder = tmp_path_factory.mktemp("nine") / "brats"
    return write_phantoms("brats", folder, cases=9, size=(32, 32, 16), test_cases=0)


@pytest.fixture(scope="session")
def launch(nine_cases, tmp_path_factory, pytestconfig):
    """A function that trains a tiny bundle with a probe, in `processes` processes."""
    bundles = pytestconfig.rootpath / "bundles"

    def run(
        name, processes, *overlays, probe=None, extra=None, inert=True, folder=None, **settings
    ):
        kind = "pretraining" if name == "mae_pretrain" else "segmentation"
        folder = folder or tmp_path_factory.mktemp(f"{name}_{processes}_")
        files = ["train", *(["multi_gpu_train"] if processes > 1 else []), *overlays]
        configs = [bundles / name / "configs" / f"{file}.json" for file in files]
        options = {"fix_masks": kind == "pretraining", **(probe or {})}
        values = {
            **ENCODER, **TINY[kind], **SHORT, **(INERT[kind] | {"amp": False} if inert else {}),
            "dataset_dir": nine_cases, "num_folds": 3, "batch_size": 2 // processes,
            "ckpt_dir": folder / "models", "output_dir": folder / "eval", **settings,
        }  # fmt: skip
        configs.append(probe_overlay(folder, options, dict(extra or {})))
        return Launched(start(processes, configs, values, folder), folder)

    return run


def probe_overlay(folder, options, extra):
    probe = {
        "_target_": "rank_probe.RankProbe", "out": "@output_dir", "network": "@network_def",
        "validator": "@validate#evaluator", "optimizer": "@optimizer", **options,
    }  # fmt: skip
    handlers = [*extra.pop("+train#handlers", []), probe]
    path = folder / "probe.json"
    path.write_text(json.dumps({"+train#handlers": handlers, **extra}), encoding="utf-8")
    return path


def start(processes, configs, values, folder):
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    flags = [part for key, value in values.items() for part in (f"--{key}", str(value))]
    files = str([str(path) for path in configs])
    command = [sys.executable, "-m", *(torchrun if processes > 1 else []), "monai.bundle", "run"]
    env = {
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[2]), str(HERE)]),
        "OMP_NUM_THREADS": "1",
        "WRITES_BELOW": str(folder),
        **({"ALONE": "1"} if processes == 1 else {}),
    }
    return subprocess.run(
        [*command, "training", "--config_file", files, *flags],
        capture_output=True, encoding="utf-8", check=False, timeout=300, env={**os.environ, **env},
    )  # fmt: skip
