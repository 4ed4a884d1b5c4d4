"""The command lines of a run, and the config that a study lays over the bundle's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fire import parser

from lora_ext.study.plan import Run

MONAI_BUNDLE = ("python", "-m", "monai.bundle")
OVERLAY = "overlay.json"
NETWORK_ARGUMENTS = {
    "in_channels": "$len(@modalities)",
    "out_channels": "$len(@regions)",
    "img_size": "@roi_size",
    "spacing": "@spacing",
    "feature_size": "@feature_size",
    "hidden_size": "@hidden_size",
    "mlp_dim": "@mlp_dim",
    "num_heads": "@num_heads",
    "modalities": "@modalities",
}


def commands(run: Run, bundles: Path, folder: Path) -> dict[str, list[str]]:
    """Compose the command lines of a run, as a user would type them.

    Args:
        run: what to run.
        bundles: the folder of bundles.
        folder: the run's folder; checkpoints and reports go below it, nothing into the bundle.

    Returns:
        Arguments, the program first, by ``training`` and ``evaluating``.
    """
    configs = bundles / run.bundle / "configs"
    names = {"training": ["train.json"], "evaluating": ["train.json", "evaluate.json"]}
    settings = {
        "dataset_dir": run.dataset_dir,
        "ckpt_dir": str(folder / "models"),
        "output_dir": str(folder / "eval"),
        "seed": run.seed,
        "fold": run.fold,
        **run.knobs,
    }
    flags = [word for key, value in settings.items() for word in (f"--{key}", as_word(value))]
    return {
        kind: [
            *(*MONAI_BUNDLE, "run", kind, "--config_file"),
            repr([str(configs / file) for file in files] + [str(folder / OVERLAY)]),
            *flags,
        ]
        for kind, files in names.items()
    }


def overlay(run: Run, folder: Path) -> dict[str, Any]:
    """Compose the config that is laid over the bundle's.

    Args:
        run: what to run.
        folder: the run's folder.

    Returns:
        A handler that records the device and, for a reference row, the network alone.
    """
    record = {"_target_": "lora_ext.study.DeviceRecord", "path": str(folder / "device.json")}
    config: dict[str, Any] = {"+train#handlers": [record]}
    if run.reference:
        target = {"_target_": "lora_ext.study.ReferenceNetwork", "name": run.regime}
        config["network_def"] = target | NETWORK_ARGUMENTS
    return config


def as_word(value: Any) -> str:
    """Write a value as one word of a command line that fire reads back as the same value."""
    if isinstance(value, str) and parser.DefaultParseValue(value) == value:
        return value
    return repr(value)
