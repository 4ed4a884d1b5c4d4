"""Kill a small training at random times, resume it, and count what was lost.

Usage, from the repository's root: python benchmarks/kills.py OUT [--kills 100] [--epochs 200]

It trains `brats_lora16`, small, on phantoms: once without interruption, then with random SIGKILLs,
each followed by the same command with ``--resume True``. Printed as JSON: checkpoints that a kill
made unreadable, drafts that are left after a start, and tensors in which the resumed run's last
state differs from the uninterrupted one's. All of them should be 0.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import fire
import torch

from lora_ext.phantoms import write_phantoms

CONFIG = "bundles/brats_lora16/configs/train.json"
SMALL = {
    "roi_size": "[32,32,16]", "feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_layers": 4,
    "num_heads": 2, "sw_overlap": 0.0, "num_workers": 0, "pretrained": "none",
    "modality_dropout": 0.2, "val_interval": 1,
}  # fmt: skip


def start(out: Path, name: str, epochs: int, *flags: str) -> subprocess.Popen:
    """Start the training; its log is appended to."""
    own = {"dataset_dir": out / "phantoms", "ckpt_dir": out / name / "models"}
    own |= {"output_dir": out / name / "eval", "epochs": epochs, **SMALL}
    flags = (*(word for key, value in own.items() for word in (f"--{key}", str(value))), *flags)
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", CONFIG]
    with (out / f"{name}.log").open("a", encoding="utf-8") as log:
        return subprocess.Popen([*command, *flags], stdout=log, stderr=log)


def state(folder: Path) -> dict[str, torch.Tensor] | None:
    """The network of the last checkpoint, None if there is none; raises if it cannot be read."""
    path = folder / "models" / "last.ckpt"
    return torch.load(path, weights_only=True)["network"] if path.is_file() else None


def kill_at_random(out: Path, epochs: int, wait: random.Random) -> bool:
    """Go on with the training, and kill it some seconds after its first epoch of this time."""
    log = out / "killed.log"
    seen = log.stat().st_size if log.is_file() else 0
    child = start(out, "killed", epochs, "--resume", "True")
    while child.poll() is None and b"INFO epoch" not in log.read_bytes()[seen:]:
        time.sleep(0.01)
    try:
        child.wait(wait.uniform(0, 3))
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return True
    return False


def main(out: str, kills: int = 100, epochs: int = 200, seed: int = 0) -> None:
    """Train, kill, resume, compare.

    Args:
        out: an empty folder.
        kills: at most so many SIGKILLs; they end when the training does.
        epochs: length of the training.
        seed: of their times.
    """
    folder, wait = Path(out), random.Random(seed)
    write_phantoms("brats", folder / "phantoms", cases=5, size=(48, 48, 24), test_cases=0)
    start(folder, "whole", epochs).wait()
    done = lost = 0
    while done < kills and kill_at_random(folder, epochs, wait):
        done += 1
        try:
            state(folder / "killed")
        except (RuntimeError, EOFError):
            lost += 1
    status = start(folder, "killed", epochs, "--resume", "True").wait()
    whole, resumed = state(folder / "whole") or {}, state(folder / "killed") or {}
    differing = [k for k, t in whole.items() if k not in resumed or not torch.equal(t, resumed[k])]
    found = {"kills": done, "exit_status": status, "lost_checkpoints": lost}
    found["left_drafts"] = len(list((folder / "killed").rglob(".*.draft")))
    found["differing_tensors"] = len(differing)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    fire.Fire(main)
