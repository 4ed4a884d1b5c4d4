"""Stands in for ``python -m monai.bundle``: quick, and fails or hangs where it is told to.

FAKE_FAIL names a row, or the folder of its study, and a process (``brats_frozen training``) that
fails; FAKE_HANG one that a checkpoint after its first epoch and then waits to be killed.
"""

import json
import os
import sys
import time
from pathlib import Path

kind = sys.argv[2]
flags = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=True))
models, report = Path(flags["--ckpt_dir"]), Path(flags["--output_dir"])
row, study = models.parents[1].name, models.parents[3].name
with open(os.environ["FAKE_CALLS"], "a", encoding="utf-8") as calls:
    calls.write(json.dumps([row, kind, flags.get("--resume")]) + "\n")
if os.environ.get("FAKE_FAIL") in (f"{row} {kind}", f"{study} {kind}"):
    print("Traceback (most recent call last):\n\nerror: the fake failed")
    sys.exit(3)
models.mkdir(parents=True, exist_ok=True)
report.mkdir(parents=True, exist_ok=True)
if kind == "training":
    if "--resume" not in flags:
        print("10:00:00 INFO 4 training cases, 1 for validation (a)")
        print("10:00:00 INFO epoch 1/2: loss 1.5000, learning rate 0.005, 0.1 s", flush=True)
        (models / "last.ckpt").write_text("checkpoint", encoding="utf-8")
    if os.environ.get("FAKE_HANG") == f"{row} {kind}":
        time.sleep(60)
    print("10:00:01 INFO epoch 2/2: loss 1.2500, learning rate 4e-08, 0.1 s", flush=True)
    print("10:00:02 INFO epoch 2/2: validation pooled_dice 0.2500 (best 0.2500 in epoch 2), x")
    (models / "model.pt").write_text("weights", encoding="utf-8")
else:
    metrics = {
        "encoder": "random" if flags.get("--pretrained", "none") == "none" else "a.pt (sha256 0)",
        "regions": {"TC": [2, 3]},
        "summary": {"pooled_dice": 0.25, "mean_dice": 0.2, "regions": {"TC": {"dice": 0.2}}},
        "cases": [{"case": "a", "pooled_dice": 0.25}],
    }
    (report / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
