"""Does the fast inference find what the plain one finds? A trained bundle, evaluated three times.

Usage: python benchmarks/inference_dice.py CONFIGS OUT [--flags of the bundle, as it was trained]

CONFIGS is the ``configs`` folder of a bundle. Its validation cases are evaluated as the bundle does
it, then in float32, then in float32 on every window of the uncropped image. The last shows what
becomes of a network that never saw empty air in training.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import fire
from monai.bundle import run


def evaluate(configs: Path, out: Path, **flags: Any) -> tuple[float, float]:
    """Evaluate the bundle, and return ``pooled_dice`` and the seconds that it took."""
    files = [str(configs / "train.json"), str(configs / "evaluate.json")]
    start = time.perf_counter()
    run(run_id="evaluating", config_file=files, output_dir=str(out), **flags)
    summary = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["summary"]
    return summary["pooled_dice"], time.perf_counter() - start


def main(configs: str, out: str, **flags: Any) -> None:
    """Evaluate in all three ways and print the figures below each other."""
    transforms = json.loads(Path(configs, "evaluate.json").read_text(encoding="utf-8"))[
        "validate#preprocessing"
    ]["transforms"]
    uncropped = [t for t in transforms if t["_target_"] != "CropForegroundd"]
    ways = {
        "bundle": {},
        "float32": {"amp": False},
        "uncropped": {"amp": False, "validate#preprocessing#transforms": uncropped},
    }
    figures = {
        way: evaluate(Path(configs), Path(out, way), **flags, **extra)
        for way, extra in ways.items()
    }
    for way, (dice, seconds) in figures.items():
        difference = dice - figures["bundle"][0]
        print(f"{way:<10} pooled_dice {dice:.4f} ({difference:+.4f}), {seconds:.1f} s in all")


if __name__ == "__main__":
    fire.Fire(main)
