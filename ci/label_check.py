"""The Python side of ci/label_check.sh.

Usage: python ci/label_check.py untrained MODELS       the other bundles, for the server to list
       python ci/label_check.py datastore TASK STUDIES HELD_OUT
       python ci/label_check.py ask URL WORK           the checks; exits with 1 if one fails
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import fire
from labelling.checks import Checks
from labelling.folders import fill_datastore, write_untrained
from labelling.report import Report
from labelling.server import Server

ROOT = Path(__file__).resolve().parents[1]
TASK = "Task01_BRATS2013"


def untrained(models: str) -> None:
    """Write every bundle but the trained one into the app's model folder."""
    write_untrained(Path(models))


def datastore(task: str, studies: str, held_out: str) -> None:
    """Write a task's images as MONAI Label takes them."""
    fill_datastore(Path(task), Path(studies), Path(held_out))


def ask(url: str, work: str) -> None:
    """Check a running server."""
    folder = Path(work).resolve()
    report = Report()
    Checks(Server(url, folder / "answers"), folder, real_patient()).run(report)
    print(f"\n{report}")
    sys.exit(1 if report.failed else 0)


def real_patient() -> Path | None:
    """The image of one of the real patients, where they are."""
    given = os.environ.get("LORA_EXT_REAL_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    task = folder if folder.name == TASK else folder / TASK
    return next(iter(sorted((task / "imagesTr").glob("*.nii.gz"))), None)


if __name__ == "__main__":
    fire.Fire({"untrained": untrained, "datastore": datastore, "ask": ask})
