"""The page of `inspect`: one file with every case, faults and remarks, names escaped."""

from __future__ import annotations

import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from lora_ext.evaluation.inspection import inspect_data

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def data(tmp_path):
    """Five cases of two files and a label map; one label map is shifted, one name is bad."""
    for name in ("a", "b", "c", "d", "<script>"):
        image = np.random.default_rng(0).normal(50, 5, (20, 20, 20)).astype(np.float32)
        label = np.zeros((20, 20, 20), np.uint8)
        label[5:9, 5:9, 5:9] = 4
        for part, voxels in (("flair", image), ("t1c", image), ("seg", label)):
            affine = AFFINE.copy()
            affine[0, 3] = 9 if (name, part) == ("b", "seg") else 0
            folder = tmp_path / "data" / name
            folder.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, affine), folder / f"{name}_{part}.nii.gz")
    return tmp_path / "data"


def test_the_page_holds_every_case_in_itself(data, tmp_path):
    text = inspect_data(data, tmp_path / "out")
    assert "5 cases, 5 with a label map" in text
    assert re.search(r"label 4 \(ml\) +5 +0\.064 +0\.064 +0\.064", text)
    assert "1 fault\n  b: " in text
    assert "puts a corner 9 voxels (9 mm) elsewhere" in text
    page = (tmp_path / "out" / "inspection.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5
    assert set(re.findall(r'(?:src|href)="(\w+|#)', page)) == {"data", "#"}
    assert "<script" not in page
    assert (tmp_path / "out" / "contact_sheet.png").stat().st_size > 1000


def test_without_a_folder_nothing_is_written_and_bad_input_is_one_sentence(data, tmp_path):
    inspect_data(data, modalities=["t1gd"])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    with pytest.raises(ValueError, match="channel: expected 0 to 1, got 5"):
        inspect_data(data, channel=5)
    command = [sys.executable, "-m", "lora_ext", "inspect", "--data", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
