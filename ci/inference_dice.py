"""Does the fast inference find what the plain one finds? A trained bundle, evaluated twice.

Usage: python ci/inference_dice.py CONFIGS OUT [--flags of the bundle, as it was trained]

CONFIGS is the ``configs`` folder of a bundle. Its validation cases are evaluated once as the bundle
does it, and once as MONAI would by default: in float32, on every window of the uncropped image.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import fire
from monai.bundle import run


def evaluate(configs: Path, out: Path, **flags: Any) -> tuple[float, float]:
    """Evaluate the bundle; return ``pooled_dice`` and the seconds it took."""
    files = [str(configs / "train.json"), str(configs / "evaluate.json")]
    start = time.perf_counter()
    run(run_id="evaluating", config_file=files, output_dir=str(out), **flags)
    summary = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["summary"]
    return summary["pooled_dice"], time.perf_counter() - start


def main(configs: str, out: str, **flags: Any) -> None:
    """Evaluate both ways and print the figures side by side."""
    transforms = json.loads(Path(configs, "evaluate.json").read_text(encoding="utf-8"))[
        "validate#preprocessing"
    ]["transforms"]
    plain = {
        "amp": False,
        "validate#preprocessing#transforms": [
            t for t in transforms if t["_target_"] != "CropForegroundd"
        ],
    }
    ours, ours_time = evaluate(Path(configs), Path(out, "bundle"), **flags)
    theirs, their_time = evaluate(Path(configs), Path(out, "plain"), **flags, **plain)
    print(f"bundle: pooled_dice {ours:.4f}, {ours_time:.1f} s with reading and figures")
    print(f"plain:  pooled_dice {theirs:.4f}, {their_time:.1f} s with reading and figures")
    print(f"difference {ours - theirs:+.4f}")


if __name__ == "__main__":
    fire.Fire(main)
