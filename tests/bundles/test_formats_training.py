"""Training and evaluation on other formats than NIfTI, and a real patient in each of them."""

from __future__ import annotations

import json

import itk
import nibabel as nib
import numpy as np
import pytest

BUNDLE = "prostatex_baseline"
CASES = ("nifti", "nrrd", "dicom")
SETTINGS = {
    "num_workers": 0,
    "amp": False,
    "feature_size": 4,
    "hidden_size": 24,
    "mlp_dim": 32,
    "num_layers": 4,
    "num_heads": 2,
}


def test_training_on_other_formats_gives_the_losses_and_the_report_of_nifti(
    run_workflow, tasks, tmp_path, write_image
):
    """dataset.json lists NRRD and MetaImage, of images and labels, in any mix."""
    other = rewritten(tasks["prostatex"], tmp_path / "other", write_image)
    reports = []
    for task in (tasks["prostatex"], other):
        own = {"dataset_dir": str(task), **SETTINGS, "roi_size": [32, 32, 16], "spacing": [1.0] * 3}
        training = {"epochs": 1, "crops_per_case": 1, "num_folds": 2}
        workflow = run_workflow(BUNDLE, "train", **own, **training)
        loss = workflow.parser.get_parsed_content("train#trainer").state.output[0]["loss"]
        run_workflow(BUNDLE, "evaluate", **own, num_folds=2)
        report = json.loads((tmp_path / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
        reports.append({"loss": loss, **report["summary"]})
    assert reports[0] == reports[1]


def rewritten(task, out, write_image):
    """Write a task again, every file in the next of several formats."""
    content = json.loads((task / "dataset.json").read_text(encoding="utf-8"))
    entries = content["training"]
    formats = (".nrrd", ".mha", ".nii.gz", ".mhd", ".nhdr")
    for i, entry in enumerate(entries):
        for j, key in enumerate(("image", "label")):
            image = nib.load(task / entry[key])
            entry[key] = entry[key].replace(".nii.gz", formats[(i + j) % len(formats)])
            write_image(out / entry[key], np.asarray(image.dataobj), image.affine)
    (out / "dataset.json").write_text(json.dumps(content | {"test": []}), encoding="utf-8")
    return out


@pytest.mark.slow
def test_a_real_patient_is_segmented_alike_from_nifti_nrrd_and_dicom(
    run_workflow, real_data, tmp_path, write_image
):
    own = SETTINGS | {"modalities": ["FLAIR", "t1gd"], "roi_size": [32] * 3, "spacing": [3.0] * 3}
    training = {"epochs": 40, "val_interval": 40, "num_folds": 4, "cache_rate": 1.0}
    run_workflow("brats_baseline", "train", dataset_dir=str(real_data), **own, **training)
    image = nib.load(sorted((real_data / "imagesTr").iterdir())[0])
    voxels, folder = np.asarray(image.dataobj), tmp_path / "real"
    write_image(folder / "nifti.nii.gz", voxels, image.affine)
    write_image(folder / "nrrd.nrrd", voxels, image.affine, compression=True)
    for channel, name in enumerate(own["modalities"]):
        uid = f"1.2.826.0.1.3680043.2.1125.{channel}"
        write_image(folder / "dicom" / name, voxels[..., channel], image.affine, uid=uid)
    run_workflow("brats_baseline", "infer", dataset_dir=str(folder), **own)
    segmentations = {case: itk.imread(str(tmp_path / "infer" / f"{case}.nii.gz")) for case in CASES}
    expected = itk.array_from_image(segmentations["nifti"])
    assert expected.T.shape == voxels.shape[:3]
    assert np.count_nonzero(expected) > 10_000  # mm^3
    for segmentation in segmentations.values():
        # The input's affine is diagonal: LPS is what ITK calls the identity.
        np.testing.assert_allclose(itk.array_from_matrix(segmentation.GetDirection()), np.eye(3))
        np.testing.assert_allclose(segmentation.GetSpacing(), 1)
        np.testing.assert_allclose(segmentation.GetOrigin(), [-1, -1, 1] * image.affine[:3, 3])
        np.testing.assert_array_equal(itk.array_from_image(segmentation), expected)
