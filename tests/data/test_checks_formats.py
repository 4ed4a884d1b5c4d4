"""The checks of `check_cases` on NRRD, MetaImage and DICOM."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from lora_ext.data.checks import check_cases
from lora_ext.data.task import read_task

NAMES = ("FLAIR", "t1gd")
ENDINGS = [".nrrd", ".nhdr", ".mha", ".mhd"]


def image(channels=2):
    shape = (7, 6, 5, channels) if channels else (7, 6, 5)
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def label(value=1):
    voxels = np.zeros((7, 6, 5), np.uint8)
    voxels[1, 2, 3] = value
    return voxels


def integers():
    return np.random.default_rng(0).integers(0, 99, (7, 6, 5)).astype(np.int16)


def check(*items, names=NAMES, values=(0, 1, 2), record=None):
    check_cases(items, channel_names=names, label_values=values, record=record)


@pytest.mark.parametrize("ending", ENDINGS)
def test_good_cases_of_any_format_pass(tmp_path, write_image, oblique, ending):
    path = write_image(tmp_path / f"a{ending}", image(), oblique)
    truth = write_image(tmp_path / f"label{ending}", label(), oblique)
    check({"case": "a", "image": path, "label": truth})
    series = write_image(tmp_path / "series", integers(), oblique)
    one = write_image(tmp_path / f"one{ending}", image(0), oblique)
    check({"case": "b", "image": [series, one], "label": truth})


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_fault_is_named(tmp_path, write_image, oblique, ending):
    bad = image()
    bad[0, 0, :3, 1] = (np.nan, np.inf, -np.inf)
    path = write_image(tmp_path / f"a{ending}", bad, oblique)
    with pytest.raises(ValueError, match=rf"a{ending}: .* voxels, 3 in channel 1 \(t1gd\)"):
        check({"case": "a", "image": path})
    with pytest.raises(ValueError, match=rf"a{ending}: found 2 channels; allowed are 1 \(t1gd\)"):
        check({"case": "a", "image": path}, names=["t1gd"])
    path = write_image(tmp_path / f"b{ending}", image(), oblique)
    wrong = write_image(tmp_path / f"label{ending}", label(7), oblique)
    with pytest.raises(ValueError, match=rf"label{ending}: found the label values 7; allowed are"):
        check({"case": "b", "image": path, "label": wrong})
    moved = write_image(tmp_path / f"moved{ending}", label(), oblique + np.eye(4, k=3))
    with pytest.raises(ValueError, match=rf"moved{ending}: found the affine .*b{ending}"):
        check({"case": "b", "image": path, "label": moved})


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
def test_a_missing_data_file_is_named(tmp_path, write_image, oblique, ending):
    path = write_image(tmp_path / f"a{ending}", image(), oblique)
    (tmp_path / "a.raw").unlink()
    with pytest.raises(ValueError, match=r"a\.raw: found no such file; case a needs it"):
        check({"case": "a", "image": path})


def test_channels_on_different_grids_name_both_files_and_grids(tmp_path, write_image, oblique):
    files = [
        write_image(tmp_path / "a_FLAIR.mha", image(0), oblique),
        write_image(tmp_path / "a_t1gd", integers()[:, :, :4], oblique),
    ]
    words = (
        r"a_t1gd: found the shape \(7, 6, 4\) at 1\.5x1\.25x4 mm; "
        r"allowed is that of .*a_FLAIR\.mha, \(7, 6, 5\) at 1\.5x1\.25x4 mm"
    )
    with pytest.raises(ValueError, match=words):
        check({"case": "a", "image": files})


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mhd", "a"])
def test_the_record_knows_every_file_of_an_image(tmp_path, write_image, oblique, name):
    """A passed case is read again when its data file or one of its slices has changed."""
    record = tmp_path / "checked.json"
    item = {"case": "a", "image": write_image(tmp_path / name, integers(), oblique)}
    check(item, names=["T2"], record=record)
    assert list(json.loads(record.read_text())["passed"].values()) == [item["image"]]
    part = {"a.nrrd": "a.nrrd", "a": "a/I003"}.get(name, "a.raw")
    content, stat = (tmp_path / part).read_bytes(), os.stat(tmp_path / part)
    (tmp_path / part).write_bytes(content[:-9])
    os.utime(tmp_path / part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(ValueError, match=r"damaged or truncated|no readable DICOM"):
        check(item, names=["T2"], record=record)
    if name != "a.nrrd":  # damage that leaves size and time: the record is believed
        (tmp_path / part).write_bytes(bytes(len(content)))
        os.utime(tmp_path / part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        check(item, names=["T2"], record=record)


def test_a_task_may_list_files_of_any_format(tmp_path, write_image, oblique):
    """NRRD and MetaImage take the place of NIfTI in a Decathlon task's dataset.json."""
    training = []
    for i, (ending, other) in enumerate(
        [(".nrrd", ".mha"), (".nii.gz", ".nrrd"), (".mhd", ".nii")]
    ):
        write_image(tmp_path / f"imagesTr/a{i}{ending}", image(), oblique)
        write_image(tmp_path / f"labelsTr/a{i}{other}", label(), oblique)
        training.append({"image": f"imagesTr/a{i}{ending}", "label": f"labelsTr/a{i}{other}"})
    content = {
        "modality": {"0": "FLAIR", "1": "t1gd"},
        "labels": {"0": "background", "1": "edema"},
        "training": training,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    cases = read_task(tmp_path).training
    assert [case.name for case in cases] == ["a0", "a1", "a2"]
    check(*({"case": c.name, "image": str(c.image), "label": str(c.label)} for c in cases))
