"""The Python side of ci/label_check.sh.

Usage: python ci/label_check.py untrained MODELS       the other bundles, for the server to list
       python ci/label_check.py datastore TASK STUDIES HELD_OUT
       python ci/label_check.py ask URL WORK           the checks; exits with 1 if one fails
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import fire
import nibabel as nib
import numpy as np
import torch
from labelling.checks import BUNDLE, CHANNELS, HELD_OUT, Checks, Report
from labelling.server import Server
from monai.bundle import ConfigParser

from lora_ext.bundles.generator import all_facts, facts_of, render_bundle
from lora_ext.data import read_task
from lora_ext.weights import save_model

ROOT = Path(__file__).resolve().parents[1]
TASK = "Task01_BRATS2013"


SIZES = {
    "roi_size": [32, 32, 16],
    "feature_size": 4,
    "hidden_size": 24,
    "mlp_dim": 32,
    "num_layers": 4,
    "num_heads": 2,
    "lora_rank": 4,
}
DECODER = {"decoder_hidden_size": 24, "decoder_mlp_dim": 32, "decoder_num_heads": 2}


def untrained(models: str) -> None:
    """Write every other bundle, tiny, with the weights that it starts from.

    Args:
        models: the app's model folder.
    """
    for name in sorted(all_facts().keys() - {BUNDLE}):
        folder = Path(models, name)
        for path, text in render_bundle(facts_of(name, {"check": SIZES | DECODER})).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        parser = ConfigParser()
        parser.read_config(folder / "configs" / "inference.json")
        torch.manual_seed(0)
        save_model(parser.get_parsed_content("network_def"), folder / "models" / "model.pt")


def datastore(task: str, studies: str, held_out: str) -> None:
    """Write a task's images as MONAI Label takes them: one 4D file with the bundle's channels.

    Args:
        task: folder of a Decathlon task.
        studies: the datastore.
        held_out: folder for the images that the datastore gets no labels of.
    """
    cases = read_task(task).training
    channels = read_task(task).channel_indices(CHANNELS)
    for folder in (studies, held_out):
        Path(folder).mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(cases):
        image = nib.load(case.image)
        voxels = np.asarray(image.dataobj)[..., channels]
        path = Path(studies, f"{case.name}.nii.gz")
        nib.save(nib.Nifti1Image(voxels, image.affine), path)
        if number >= len(cases) - HELD_OUT:
            shutil.copy(path, held_out)


def ask(url: str, work: str) -> None:
    """Check a running server."""
    folder = Path(work).resolve()
    report = Report()
    Checks(Server(url, folder / "answers"), folder, real_patient()).run(report)
    print(f"\n{report}")
    sys.exit(1 if report.failed else 0)


def real_patient() -> Path | None:
    """Return the image of one of the real patients, where they are."""
    given = os.environ.get("LORA_EXT_REAL_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    task = folder if folder.name == TASK else folder / TASK
    return next(iter(sorted((task / "imagesTr").glob("*.nii.gz"))), None)


if __name__ == "__main__":
    fire.Fire({"untrained": untrained, "datastore": datastore, "ask": ask})
