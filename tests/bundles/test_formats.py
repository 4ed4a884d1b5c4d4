"""Inference on every format: one volume, written in many ways, is segmented in one place.

A tiny network learns to mark what is bright, in each channel its own region. The volume is oblique,
anisotropic, stored in axes that are not RAS, and has a bright mark per channel in places that no
flip or exchange of axes takes into each other.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib

import itk
import nibabel as nib
import numpy as np
import pytest
import torch

from lora_ext import ChannelLoRAUNETR
from lora_ext.bundles.starting import user_error
from lora_ext.images import open_image
from lora_ext.training import RegionDiceCELoss
from lora_ext.weights import save_model

BUNDLE = "prostatex_baseline"
SIZES = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_layers": 4, "num_heads": 2}
SETTINGS = {"roi_size": [16, 16, 16], "spacing": [4.0] * 3, "num_workers": 0, "amp": False, **SIZES}
SHAPE = (40, 36, 14)
MARKS = {1: (-14.0, 15.0, 10.0), 2: (12.0, -16.0, 6.0)}  # mm to the right, front and top
MARK_RADIUS = 7.0  # mm


@pytest.fixture(scope="session")
def bright_models(tmp_path_factory):
    """A folder with the model of a network that has learnt to mark what is bright."""
    torch.manual_seed(0)
    network = ChannelLoRAUNETR(
        2, 2, (16, 16, 16), regime="baseline", modalities=["T2", "ADC"], **SIZES
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    loss_function = RegionDiceCELoss()
    random = torch.Generator().manual_seed(0)
    for _ in range(100):
        marks = torch.zeros(2, 2, 16, 16, 16)
        for mark in marks.flatten(0, 1):
            x, y, z = torch.randint(0, 13, (3,), generator=random).tolist()
            mark[x : x + 3, y : y + 3, z : z + 3] = 1
        image = 600 * marks + 25 * torch.randn(marks.shape, generator=random)
        image -= image.mean(dim=(2, 3, 4), keepdim=True)
        image /= image.std(dim=(2, 3, 4), keepdim=True)  # as the bundle's preprocessing
        loss = loss_function(network(image), marks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_model(network, tmp_path_factory.mktemp("bright") / "model.pt")
    return tmp_path_factory.getbasetemp() / "bright0"


@pytest.fixture
def segment(run_workflow, bright_models, tmp_path):
    """A function that runs the bundle's inference on a folder -> the folder of segmentations."""

    def run(folder, before_run=lambda workflow: None, **settings):
        own = {"dataset_dir": str(folder), "ckpt_dir": str(bright_models), **SETTINGS, **settings}
        run_workflow(BUNDLE, "infer", before_run, **own)
        return tmp_path / "infer"

    return run


def places(shape, affine):
    """Position in mm of every voxel, (H, W, D, 3)."""
    return np.stack(np.indices(shape), axis=-1) @ affine[:3, :3].T + affine[:3, 3]


def centre(affine):
    return (affine @ [*(np.array(SHAPE) - 1) / 2, 1])[:3]


@pytest.fixture
def channels(oblique):
    """T2 and ADC, int16: noise, and one bright mark each."""
    random = np.random.default_rng(0)
    from_centre = places(SHAPE, oblique) - centre(oblique)
    return [
        np.where(np.linalg.norm(from_centre - place, axis=-1) < MARK_RADIUS, 900, 300).astype("i2")
        + random.integers(-40, 40, SHAPE, dtype="i2")
        for place in MARKS.values()
    ]


@pytest.fixture
def cases(tmp_path, write_image, oblique, channels):
    """A folder with the same volume in every format and layout, a case each."""
    folder = tmp_path / "cases"
    both = np.stack(channels, axis=3)
    turned = nib.Nifti1Image(both, oblique).as_reoriented([[1, -1], [2, 1], [0, -1]])
    write_image(folder / "nifti.nii.gz", np.asarray(turned.dataobj), turned.affine)
    for ending in ("nrrd", "nhdr", "mha", "mhd"):
        write_image(folder / f"whole.{ending[1:]}.{ending}", both, oblique, compression=True)
    names = {
        "files_T2.nii": 0,
        "files_ADC.nii.gz": 1,
        "mixed_ADC.mha": 1,
        "mixed_T2.nhdr": 0,
        "dicom.1/t2": 0,
        "dicom.1/ADC": 1,
        "series_T2": 0,
        "series_ADC": 1,
        "dicom and files/T2": 0,
        "dicom and files_ADC.nrrd": 1,
    }
    for name, channel in names.items():
        uid = f"1.2.826.0.1.3680043.2.1125.{channel}"
        series = {"uid": uid} if "." not in name.rpartition("/")[2] else {}
        write_image(folder / name, channels[channel], oblique, **series)
    rescaled = {"0028|1053": "0.5", "0028|1052": "-100"}
    write_image(folder / "rescaled_ADC.mha", channels[1], oblique)
    write_image(
        folder / "rescaled_T2", channels[0].astype(np.float32), oblique, tags=lambda _: rescaled
    )
    return folder


CASES = {"nifti", "whole.rrd", "whole.hdr", "whole.ha", "whole.hd", "files", "mixed", "dicom.1",
         "series", "dicom and files", "rescaled"}  # fmt: skip


def test_every_format_is_preprocessed_to_one_tensor_in_one_place(segment, cases):
    """The network gets the same numbers, and the affine says the same place."""
    seen = {}

    def look(workflow):
        for item in workflow.parser.get_parsed_content("dataset"):
            seen[item["case"]] = item["image"]

    segment(cases, look)
    assert seen.keys() == CASES
    for image in seen.values():
        torch.testing.assert_close(
            image.as_tensor(), seen["nifti"].as_tensor(), atol=1e-4, rtol=1e-4
        )
        np.testing.assert_allclose(image.affine, seen["nifti"].affine, atol=1e-4)


def read_nifti(path):
    """Labels and affine in RAS, by ITK, as nibabel wrote the file."""
    image = itk.imread(str(path))
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return itk.array_from_image(image).T, np.diag([-1, -1, 1, 1]) @ affine


def read_nrrd(path):
    """Labels and affine in RAS, by the format's definition, as ITK wrote the file."""
    header, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(re.findall(r"^([\w ]+): (.*)$", header.decode(), re.MULTILINE))
    assert (fields["type"], fields["space"]) == ("unsigned char", "left-posterior-superior")
    numbers = [float(x) for x in re.findall(r"[-+.\de]+", fields["space directions"])]
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(numbers, (3, 3)).T
    affine[:3, 3] = [float(x) for x in re.findall(r"[-+.\de]+", fields["space origin"])]
    shape = [int(x) for x in fields["sizes"].split()]
    voxels = np.frombuffer(gzip.decompress(data), np.uint8).reshape(shape, order="F")
    return voxels, np.diag([-1, -1, 1, 1]) @ affine


def read_mha(path):
    """Labels and affine in RAS, by the format's definition, as ITK wrote the file."""
    header, _, data = path.read_bytes().partition(b"ElementDataFile = LOCAL\n")
    fields = dict(re.findall(r"^(\w+) = (.*)$", header.decode(), re.MULTILINE))
    assert (fields["ElementType"], fields["CompressedData"]) == ("MET_UCHAR", "True")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape([float(x) for x in fields["TransformMatrix"].split()], (3, 3)).T
    affine[:3, :3] *= [float(x) for x in fields["ElementSpacing"].split()]
    affine[:3, 3] = [float(x) for x in fields["Offset"].split()]
    shape = [int(x) for x in fields["DimSize"].split()]
    voxels = np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape, order="F")
    return voxels, np.diag([-1, -1, 1, 1]) @ affine


READ = {".nii.gz": read_nifti, ".nrrd": read_nrrd, ".mha": read_mha}


@pytest.mark.parametrize("output_ext", READ)
def test_every_format_is_segmented_in_one_place_on_its_own_grid(
    segment, cases, oblique, output_ext
):
    out = segment(cases, output_ext=output_ext)
    assert {path.name for path in out.glob("[!.]*")} == {f"{case}{output_ext}" for case in CASES}
    first, affine = READ[output_ext](out / f"series{output_ext}")
    np.testing.assert_allclose(affine, oblique, atol=1e-5)
    for case in CASES:
        labels, own = READ[output_ext](out / f"{case}{output_ext}")
        assert labels.dtype == np.uint8
        expected = nib.load(cases / "nifti.nii.gz").affine if case == "nifti" else oblique
        np.testing.assert_allclose(own, expected, atol=1e-5)
        # The volume is one, so every voxel has its place among the first case's.
        i, j, k = np.rint(places(labels.shape, np.linalg.inv(affine) @ own)).astype(int).T
        assert np.mean(first.T[k, j, i] != labels.T) < 1e-4, case


@pytest.mark.parametrize("output_ext", READ)
def test_a_mark_at_a_known_place_in_the_patient_is_found_there(segment, cases, oblique, output_ext):
    """T2's mark is to the left, in front and on top, where a patient has it, in every output."""
    out = segment(cases, output_ext=output_ext)
    for case in CASES:
        labels, affine = READ[output_ext](out / f"{case}{output_ext}")
        for label, place in MARKS.items():
            found = places(labels.shape, affine)[labels == label] - centre(oblique)
            assert len(found) * 1.5 * 1.25 * 4 > 0.5 * 4.19 * MARK_RADIUS**3  # a sphere's volume
            assert np.linalg.norm(found.mean(axis=0) - place) < 1
            assert np.linalg.norm(found - place, axis=1).max() < MARK_RADIUS + 2


def test_dicom_in_gives_dicom_out_and_slicers_format_in_one_place(
    segment, tmp_path, write_image, channels, oblique
):
    hd = pytest.importorskip("highdicom")
    frame = {"0020|0052": "1.2.826.0.1.3680043.2.1125.9"}
    for name, voxels in zip(("T2", "ADC"), channels, strict=True):
        write_image(tmp_path / "in" / "p" / name, voxels, oblique, tags=lambda _: frame)
    out = segment(tmp_path / "in", output_ext=".dcm")
    found = hd.seg.segread(str(out / "p.dcm"))
    assert [segment.SegmentLabel for segment in found.SegmentSequence] == ["PZ", "TZ"]
    volume = found.get_volume(combine_segments=True)
    affine = np.diag([-1, -1, 1, 1]) @ volume.affine  # in RAS
    slicer = open_image(str(segment(tmp_path / "in", output_ext=".seg.nrrd") / "p.seg.nrrd"))
    assert slicer.segments == {1: "PZ", 2: "TZ"}
    for labels, place in ((volume.array, affine), (slicer.read(), slicer.affine)):
        for label, mark in MARKS.items():
            lies = places(labels.shape, place)[labels == label] - centre(oblique)
            assert np.linalg.norm(lies.mean(axis=0) - mark) < 1
            assert np.linalg.norm(lies - mark, axis=1).max() < MARK_RADIUS + 2


def test_dicom_out_of_files_is_refused_before_work_starts(
    segment, tmp_path, write_image, channels, oblique
):
    pytest.importorskip("highdicom")
    write_image(tmp_path / "in" / "a.nii.gz", np.stack(channels, axis=3), oblique)
    with pytest.raises(RuntimeError) as caught:
        segment(tmp_path / "in", output_ext=".dcm")
    assert "expected the folder of a DICOM series" in str(user_error(caught.value))


@pytest.mark.slow
def test_workers_read_every_format_from_the_command_line(
    monai_bundle, bright_models, cases, root, tmp_path
):
    flags = {
        "dataset_dir": cases,
        "output_dir": tmp_path / "out",
        "ckpt_dir": bright_models,
        "output_ext": ".mha",
        **{key: json.dumps(value) for key, value in SETTINGS.items() if key != "amp"},
        "amp": False,
        "num_workers": 2,
    }
    config = root / "bundles" / BUNDLE / "configs" / "inference.json"
    pairs = [text for key, value in flags.items() for text in (f"--{key}", str(value))]
    done = monai_bundle("run", "--config_file", config, *pairs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{len(CASES)} segmentations written to {tmp_path / 'out'}" in done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "out").glob("*.mha")} == {f"{c}.mha" for c in CASES}


def test_another_output_format_is_refused_before_any_file_is_read(segment, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        segment(tmp_path / "nowhere", output_ext=".png")
    assert str(user_error(caught.value)) == (
        "--output_ext: expected a text, .nii.gz, .nrrd, .mha, .seg.nrrd, .dcm; got '.png'"
    )
