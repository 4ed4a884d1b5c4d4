"""The script on the page about formats, run as its reader would run it."""

import re

import nibabel as nib
import numpy as np

from lora_ext.data import inference_cases


def test_the_script_brings_a_channel_onto_the_grid_of_another(
    root, tmp_path, monkeypatch, write_image, oblique
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DATA").mkdir()
    volume = np.random.default_rng(0).integers(0, 999, (12, 10, 8)).astype(np.int16)
    coarse = oblique @ np.diag([2, 2, 1, 1])
    write_image(tmp_path / "study/T2", volume, oblique)
    write_image(tmp_path / "study/ADC", volume[::2, ::2], coarse)
    page = (root / "docs/formats.md").read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], {})
    assert [item["case"] for item in inference_cases(tmp_path / "DATA", ["T2", "ADC"])] == ["p"]
    t2, adc = nib.load("DATA/p_T2.nii.gz"), nib.load("DATA/p_ADC.nii.gz")
    np.testing.assert_array_equal(t2.dataobj, volume)
    np.testing.assert_allclose(np.asarray(adc.dataobj)[::2, ::2], volume[::2, ::2], atol=1e-2)
