"""The folders of the check: bundles in the app's model folder, images in the datastore."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser

from lora_ext.bundles.generator import all_facts, facts_of, render_bundle
from lora_ext.data import read_task
from lora_ext.weights import save_model

BUNDLE = "brats_lora32"  # the one that is trained
CHANNELS = ("FLAIR", "t1gd")  # its channels, in the order of the datastore's files
HELD_OUT = 4  # cases at the end of the list that are never labelled in the datastore
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


def write_untrained(models: Path) -> None:
    """Write every other bundle, tiny, with the weights that it starts from.

    Args:
        models: the app's model folder.
    """
    for name in sorted(all_facts().keys() - {BUNDLE}):
        folder = models / name
        for path, text in render_bundle(facts_of(name, {"check": SIZES | DECODER})).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        parser = ConfigParser()
        parser.read_config(folder / "configs" / "inference.json")
        torch.manual_seed(0)
        save_model(parser.get_parsed_content("network_def"), folder / "models" / "model.pt")


def fill_datastore(task_folder: Path, studies: Path, held_out: Path) -> None:
    """Write a task's images as MONAI Label takes them: one 4D file with the bundle's channels.

    Args:
        task_folder: a Decathlon task.
        studies: the datastore.
        held_out: folder for the images that the datastore gets no labels of.
    """
    task = read_task(task_folder)
    channels = task.channel_indices(CHANNELS)
    for folder in (studies, held_out):
        folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(task.training):
        image = nib.load(case.image)
        voxels = np.asarray(image.dataobj)[..., channels]
        path = studies / f"{case.name}.nii.gz"
        nib.save(nib.Nifti1Image(voxels, image.affine), path)
        if number >= len(task.training) - HELD_OUT:
            shutil.copy(path, held_out)
