"""Shared fixtures: small networks, the repository's root, the real patients if they are there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "feature_size": 8,
    "hidden_size": 48,
    "mlp_dim": 96,
    "num_layers": 4,
    "num_heads": 4,
    "lora_rank": 4,
}


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def small_network():
    """A function that builds a small network: 2 channels, 3 regions, 32 x 32 x 16 voxels."""
    from lora_ext import ChannelLoRAUNETR

    def build(in_channels=2, out_channels=3, img_size=(32, 32, 16), seed=0, **sizes):
        torch.manual_seed(seed)
        return ChannelLoRAUNETR(in_channels, out_channels, img_size, **{**SMALL, **sizes})

    return build


@pytest.fixture
def in_two_processes(tmp_path):
    """A function that runs Python code in both processes of one torchrun, in an empty folder."""

    def run(code) -> subprocess.CompletedProcess:
        (tmp_path / "script.py").write_text(code, encoding="utf-8")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return subprocess.run(
            [*torchrun, "--nproc_per_node=2", "script.py"],
            capture_output=True, encoding="utf-8", check=False, timeout=200, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run


@pytest.fixture
def wake_adapters():
    """A function that gives every adapter a random up-projection, so that it has an effect."""

    def wake(network, seed=1):
        generator = torch.Generator().manual_seed(seed)
        for module in network.modules():
            if hasattr(module, "adapter_parameters"):
                with torch.no_grad():
                    module.lora_B.normal_(std=0.2, generator=generator)
        return network

    return wake


@pytest.fixture
def write_image():
    """A function that writes a volume to a path whose ending chooses the format, see `_write`."""
    return _write


@pytest.fixture
def oblique() -> np.ndarray:
    """The affine (RAS) of a sagittal stack, turned by 20 and 10 degrees, 1.5 x 1.25 x 4 mm."""
    (cos, c), (sin, s) = np.cos([0.35, 0.17]), np.sin([0.35, 0.17])
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ [[1, 0, 0], [0, c, -s], [0, s, c]]
    sagittal = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # axes to the back, down, right
    affine = np.eye(4)
    affine[:3, :3] = turn @ sagittal * (1.5, 1.25, 4)
    affine[:3, 3] = (-30.5, 42.25, 17)
    return affine


@pytest.fixture
def real_data() -> Path:
    """The folder of the four real BraTS 2013 patients; the test is skipped where it is absent."""
    folder = Path(os.environ.get("LORA_EXT_REAL_DATA", ROOT.parent / "shared" / "data"))
    task = folder / "Task01_BRATS2013" if folder.name != "Task01_BRATS2013" else folder
    if not (task / "dataset.json").is_file():
        pytest.skip(f"real patients not found in {folder}; set LORA_EXT_REAL_DATA")
    return task


def _write(path, volume, affine, **series) -> str:
    """Write (H, W, D) or (H, W, D, C) with an affine in RAS; a path without ending is a series."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(volume, affine), path)
    elif path.suffix in (".nrrd", ".nhdr", ".mha", ".mhd"):
        image = _itk_image(volume, affine)
        itk.imwrite(image, str(path), compression=series.pop("compression", False))
    else:
        _write_series(path, volume, affine, **series)
    return str(path)


def _itk_image(volume, affine):
    """ITK's image of a volume: LPS, C order, the components of a voxel last."""
    lps = np.diag([-1, -1, 1, 1]) @ affine
    axes = (2, 1, 0, 3)[: volume.ndim]
    image = itk.image_from_array(
        np.ascontiguousarray(volume.transpose(axes)), is_vector=volume.ndim == 4
    )
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    return image


def _write_series(folder, volume, affine, uid="1.2.826.0.1.3680043.2.1125.1", tags=None, skip=()):
    """One DICOM file per slice, names shuffled; `tags` gives a slice's own, `skip` leaves some out.

    Floats are stored as unsigned integers with the rescale slope and intercept of the tags.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(0).permutation(volume.shape[2])
    for index in set(range(volume.shape[2])) - set(skip):
        own = affine.copy()
        own[:3, 3] = (affine @ [0, 0, index, 1])[:3]
        image = _itk_image(np.ascontiguousarray(volume[:, :, index : index + 1]), own)
        fields = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",  # CT image: may have a rescale slope
            "0008|0018": f"{uid}.{index}",
            "0008|0060": "CT",
            "0020|000d": "1.2.826.0.1.3680043.2.1125",
            "0020|000e": uid,
            "0020|0013": str(index),
        }
        if volume.dtype.kind == "f":
            fields |= {"0028|0100": "16", "0028|0101": "16", "0028|0102": "15", "0028|0103": "0"}
        fields |= tags(index) if tags else {}
        for tag, value in fields.items():
            image.GetMetaDataDictionary()[tag] = value
        files = itk.GDCMImageIO.New()
        files.KeepOriginalUIDOn()
        writer = itk.ImageFileWriter.New(image, FileName=f"{folder}/I{names[index]:03d}")
        writer.SetImageIO(files)
        writer.Update()
