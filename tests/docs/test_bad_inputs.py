"""The page of bad inputs: what each is answered with, made by running each.

`python tests/docs/test_bad_inputs.py` writes the page again.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lora_ext.data import all_volumes, fold_cases, fold_volumes, inference_cases
from lora_ext.images.limits import check_resampled

PAGE = Path(__file__).resolve().parents[2] / "docs/bad-inputs.md"
START = """# Bad inputs

What a wrong file or data set is answered with: one sentence, before work starts. Paths are cut to \
the file name. The tests make this page by giving each of these to the package: \
`python tests/docs/test_bad_inputs.py` writes it again.

| input | found | answer |
|---|---|---|
"""
IMAGE = np.random.default_rng(0).random((8, 8, 8, 2), dtype=np.float32)
LABEL = np.ones((8, 8, 8), np.uint8)
TASK = {
    "modality": {"0": "T2", "1": "ADC"},
    "labels": {"0": "background", "1": "lesion"},
    "training": [{"image": f"{c}.nii", "label": f"{c}_label.nii"} for c in "ab"],
}
MHD = """ObjectType = Image
NDims = 3
DimSize = 8 8 8
ElementSpacing = 1 1 1
ElementType = MET_SHORT
ElementDataFile = {}
"""


def save(path, voxels, affine=None, **header):
    image = nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine)
    nib.save(image, path)
    raw = nib.load(path).header
    for key, value in header.items():
        raw[key] = value
    raw["vox_offset"] = 352  # nibabel forgets it
    content = path.read_bytes()
    path.write_bytes(raw.binaryblock + content[len(raw.binaryblock) :])


def task(folder, **changes):
    text = {**TASK, **changes}
    (folder / "dataset.json").write_text(json.dumps(text), encoding="utf-8")


def text(folder, content, name="dataset.json"):
    (folder / name).write_text(content, encoding="utf-8")


def train(folder):
    fold_cases(
        folder, ["T2", "ADC"], {"lesion": [1]}, fold=0, num_folds=2, split_seed=0, spacing=[1, 1, 1]
    )


def segment(folder):
    inference_cases(folder, ["T2"], spacing=[1, 1, 1])


def pretrain(folder):
    fold_volumes(folder, fold=0, num_folds=4, split_seed=0)


@dataclass
class Bad:
    """An input: what it is, how a good task is spoilt, and where it is found."""

    name: str
    spoil: object
    found: object = train


def image(name, voxels, **header):
    return Bad(name, lambda folder: save(folder / "a.nii", voxels, **header))


def label(name, voxels, affine=None):
    return Bad(name, lambda folder: save(folder / "a_label.nii", voxels, affine))


def dataset(name, **changes):
    return Bad(name, lambda folder: task(folder, **changes))


def alone(name, file, content):
    """A file alone in a folder, to segment."""

    def spoil(folder):
        for path in folder.iterdir():
            path.unlink()
        text(folder, content, file)

    return Bad(name, spoil, segment)


def beyond(value):
    voxels = IMAGE.astype(np.float64)
    voxels[1, 2, 3] = value
    return voxels


def moved(step):
    return np.eye(4) + step * np.eye(4, k=3)


def empty_labels(folder):
    for case in "ab":
        save(folder / f"{case}_label.nii", LABEL * 0)


def blown_up(folder):
    save(folder / "a.nii", IMAGE, np.diag([50.0, 50, 50, 1]))
    save(folder / "a_label.nii", LABEL, np.diag([50.0, 50, 50, 1]))
    check_resampled("a.nii", (512, 512, 512), (50, 50, 50), (1, 1, 1), 2)


FLAT = {"srow_x": [0] * 4, "srow_y": [0] * 4, "srow_z": [0] * 4}
BAD = [
    dataset("a key missing", labels=None),
    Bad("a key twice", lambda f: text(f, '{"labels": {}, "labels": {}}')),
    Bad("nested without end", lambda f: text(f, "[" * 200_000)),
    Bad("no JSON", lambda f: text(f, "{")),
    dataset("one label map for two images", training=[
        TASK["training"][0], {"image": "b.nii", "label": "a_label.nii"}
    ]),
    dataset("one image twice", training=[TASK["training"][0]] * 2),
    dataset("a single case", training=TASK["training"][:1]),
    dataset("a path out of the folder", training=[{"image": "../a.nii", "label": "a_label.nii"}]),
    Bad("a missing file", lambda f: (f / "a.nii").unlink()),
    Bad("a truncated file", lambda f: (f / "a.nii").write_bytes((f / "a.nii").read_bytes()[:900])),
    image("another number of channels", IMAGE[..., :1]),
    image("a plane", IMAGE[:, :, 0, 0]),
    image("a single voxel", IMAGE[:1, :1, :1]),
    image("a header that claims terabytes", IMAGE, dim=[4, 30000, 30000, 30000, 2, 1, 1, 1]),
    image("an affine of zeros", IMAGE, **FLAT),
    image("an affine with NaN", IMAGE, srow_x=[np.nan, 0, 0, 0]),
    image("no affine", IMAGE, sform_code=0, qform_code=0),
    image("lengths of metres", IMAGE, xyzt_units=1),
    image("lengths of micrometres", IMAGE, xyzt_units=3),
    image("a voxel of NaN", beyond(np.nan)),
    image("a voxel beyond float32", beyond(1e200)),
    image("complex numbers", IMAGE.astype(np.complex64)),
    Bad("a grid that resampling blows up", blown_up),
    label("a label that is not named", LABEL * 7),
    label("a label that was interpolated", LABEL * np.float32(0.5)),
    label("a label map of another shape", LABEL[1:]),
    label("a label map in another place", LABEL, moved(0.46)),
    Bad("labels empty in all cases", empty_labels),
    alone("a data file elsewhere", "a.mhd", MHD.format("/etc/passwd")),
    alone("a data file in the folder above", "a.mhd", MHD.format("../a.raw")),
    alone("no data file", "a.mhd", MHD.format("a.raw")),
    alone("a list of data files", "a.mhd", MHD.format("LIST")),
    alone("an empty folder", ".hidden", ""),
    Bad("fewer patients than folds", lambda f: (f / "dataset.json").unlink(), pretrain),
    Bad("no image", lambda f: [p.unlink() for p in f.iterdir()], all_volumes),
]  # fmt: skip
WHERE = {
    train: "training, evaluation",
    segment: "inference",
    pretrain: "pre-training",
    all_volumes: "pre-training",
}


def answer(bad, folder):
    """Spoil a good task and return the sentence that it is answered with."""
    for case in "ab":
        save(folder / f"{case}.nii", IMAGE)
        save(folder / f"{case}_label.nii", LABEL)
    task(folder)
    try:
        bad.spoil(folder)
        bad.found(folder)
    except ValueError as error:
        return str(error).replace(f"{folder}/", "").replace(str(folder), "DATA")
    raise AssertionError(f"{bad.name}: nothing was raised")


def page():
    rows = []
    for bad in BAD:
        with tempfile.TemporaryDirectory() as folder:
            said = answer(bad, Path(folder))
        rows.append(f"| {bad.name} | {WHERE[bad.found]} | {said} |\n")
    return START + "".join(rows)


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """The memory of the page's machine: the figures of this one do not belong there."""
    monkeypatch.setattr("lora_ext.images.limits.available_memory", lambda: 16_000_000_000)


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_each_answer_is_one_sentence(bad, tmp_path):
    said = answer(bad, tmp_path)
    assert "\n" not in said
    assert "Traceback" not in said
    assert any(word in said for word in ("expected", "found"))


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lora_ext.images.limits.available_memory", lambda: 16_000_000_000)
        PAGE.write_text(page(), encoding="utf-8")
