"""What inspection finds: volumes and percentiles against numpy, every fault, outliers by name."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from lora_ext.data.inspection import inspect_cases
from lora_ext.data.task import read_task

AFFINE = np.diag([-2.0, -1.0, 3.0, 1.0])
CASES = 8


@pytest.fixture
def task(tmp_path):
    """A task of eight like cases, two channels."""
    draw = np.random.default_rng(0)
    training = []
    for number in range(CASES):
        name = f"c{number}.nii.gz"
        image = draw.normal(100, 10, (10, 12, 8, 2)).astype(np.float32)
        image[:2] = 0
        label = np.zeros((10, 12, 8), np.uint8)
        label[3 : 6 + number % 2, 4:8, 2:5] = 1
        save(tmp_path / "imagesTr" / name, image)
        save(tmp_path / "labelsTr" / name, label)
        training.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
    content = {"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "lesion"}}
    text = json.dumps({**content, "training": training})
    (tmp_path / "dataset.json").write_text(text, encoding="utf-8")
    return tmp_path


def save(path, voxels, affine=AFFINE):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def read(path):
    return np.asarray(nib.load(path).dataobj)


def test_sizes_percentiles_and_volumes_are_those_of_the_files(task):
    cases = inspect_cases(read_task(task))
    assert [case.case for case in cases] == [f"c{n}" for n in range(CASES)]
    one = cases[3]
    assert (one.shape, one.spacing, one.axes) == ((10, 12, 8), (2, 1, 3), "LPS")
    channel = read(task / "imagesTr/c3.nii.gz")[..., 1]
    expected = np.percentile(channel[channel != 0], (0.5, 50, 99.5))
    found = one.channels["ADC"]
    assert np.allclose((found.low, found.median, found.high), expected)
    assert found.zero == pytest.approx(0.2)
    voxels = (read(task / "labelsTr/c3.nii.gz") == 1).sum()
    assert one.labels == {1: pytest.approx(voxels * 6 / 1000)}
    assert not any(case.problems or case.remarks for case in cases)


def test_all_faults_are_noted_each_at_its_case(task):
    image = read(task / "imagesTr/c1.nii.gz").copy()
    image[5, 5, 5, 0] = np.nan
    save(task / "imagesTr/c1.nii.gz", image)
    save(task / "labelsTr/c1.nii.gz", np.full((10, 12, 8), 7, np.uint8), np.diag([-2.0, -1, 4, 1]))
    save(task / "imagesTr/c2.nii.gz", image[..., 0])
    whole = (task / "imagesTr/c4.nii.gz").read_bytes()
    (task / "imagesTr/c4.nii.gz").write_bytes(whole[: len(whole) // 2])
    (task / "labelsTr/c5.nii.gz").unlink()
    cases = {case.case: case for case in inspect_cases(read_task(task, on_disk=()))}
    words = {
        "c1": ["non-finite ones, 1 in channel 0 (T2)", "one of 0, 1, got 7", "expected the affine"],
        "c2": ["expected 2 channels (T2, ADC), got 1"],
        "c4": ["got a damaged or truncated one"],
        "c5": ["found no such file"],
    }
    for name, case in cases.items():
        assert len(case.problems) == len(words.get(name, []))
        for expected, problem in zip(words.get(name, []), case.problems, strict=True):
            assert expected in problem
    assert cases["c2"].labels is not None


def test_outliers_are_named_with_the_reason(task):
    save(task / "labelsTr/c2.nii.gz", np.ones((10, 12, 8), np.uint8))
    save(task / "labelsTr/c6.nii.gz", np.zeros((10, 12, 8), np.uint8))
    image = read(task / "imagesTr/c4.nii.gz").copy()
    image[..., 1] *= 10
    save(task / "imagesTr/c4.nii.gz", image)
    found = {case.case: case.remarks for case in inspect_cases(read_task(task))}
    assert {name for name, remarks in found.items() if remarks} == {"c2", "c4", "c6"}
    assert found["c2"][0].startswith("volume of label 1 lesion (ml): 5.76, the median is")
    measures = [words.partition(":")[0] for words in found["c4"]]
    assert measures == ["ADC median", "ADC 99.5 percentile"]
    assert found["c6"][0] == "the label map is empty"


def test_a_picture_is_made_of_the_channel_and_the_label_on_its_grid(task):
    def keep(image, label, affine):
        return image.shape, int(label.sum()), affine[2, 2], float(image.max())

    case = inspect_cases(read_task(task), keep, channel=1)[0]
    highest = read(task / "imagesTr/c0.nii.gz")[..., 1].max()
    assert case.picture == ((10, 12, 8), 36, 3.0, pytest.approx(highest))
