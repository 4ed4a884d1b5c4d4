"""Bundles for other data: a made-up PET, MR and CT task, planned, written, trained, verified."""

from __future__ import annotations

import json
import zipfile

import nibabel as nib
import numpy as np
import pytest

from lora_ext.bundles import package
from lora_ext.bundles.generator import PLAN, check_bundles, write_bundles
from lora_ext.bundles.new_bundle import new_bundle
from lora_ext.bundles.package import package_bundle

SMALL = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_layers": 4, "num_heads": 2}
SHAPE = (40, 36, 20)


@pytest.fixture
def task(tmp_path):
    """A function that writes a task: five bodies of fat in air, a hot lesion of water in each."""
    folder = tmp_path / "data"

    def write(channels=("PET", "T1w", "CT"), labels=("background", "tumour"), **more):
        random = np.random.default_rng(0)
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir(parents=True)
        for number in range(5):
            body, lesion = np.zeros(SHAPE, bool), np.zeros(SHAPE, np.uint8)
            body[5:35, 4:32, 2:18] = True
            lesion[10:20, 10:20, 5:10] = 1
            if len(labels) > 2:
                lesion[20:25, 10:20, 5:10] = 2
            ct = np.where(lesion, random.normal(0, 20, SHAPE), np.where(body, -100, -1000))
            pet = 100 * np.where(lesion, random.uniform(5, 15, SHAPE), 0.5 * body)
            t1 = np.where(body, random.uniform(80, 120, SHAPE), 0)
            image = np.stack([pet, t1, ct][: len(channels)], axis=-1).astype(np.float32)
            affine = np.diag([-2, -2, 3, 1])
            nib.save(nib.Nifti1Image(image, affine), folder / f"imagesTr/c{number}.nii.gz")
            nib.save(nib.Nifti1Image(lesion, affine), folder / f"labelsTr/c{number}.nii.gz")
        listed = [
            {"image": f"imagesTr/c{n}.nii.gz", "label": f"labelsTr/c{n}.nii.gz"} for n in range(5)
        ]
        content = {
            "modality": {str(i): name for i, name in enumerate(channels)},
            "labels": {str(i): name for i, name in enumerate(labels)},
            "training": listed,
        }
        text = json.dumps({**content, **more})
        (folder / "dataset.json").write_text(text, encoding="utf-8")
        return folder

    return write


def config(folder, name):
    return json.loads((folder / "configs" / name).read_text(encoding="utf-8"))


def test_plan_says_what_the_cases_hold(task, tmp_path):
    out = tmp_path / "mine" / "sarcoma_lora16"
    plan = new_bundle(task(), out, "lora16")
    train = config(out, "train.json")
    assert train["modalities"] == ["PET", "T1w", "CT"]
    assert train["regions"] == {"tumour": [1]}
    assert train["intensity"] == {"PET": "pet", "T1w": "mr", "CT": "ct"}
    assert train["spacing"] == [2.0, 2.0, 3.0]
    assert train["roi_size"] == [48, 48, 32]  # PET has no outside, so the box is the image
    low, high = train["ct_window"]  # of the lesion: normal around water, sigma 20 HU
    assert low == pytest.approx(-52, abs=8)
    assert high == pytest.approx(52, abs=8)
    assert train["pet_window"][0] == 0
    assert 1400 < train["pet_window"][1] <= 1500
    assert {name: train[name] for name in plan} == {n: d.value for n, d in plan.items()}
    text = (out / "docs" / "plan.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text and d.reason in text for name, d in plan.items())


def test_metadata_and_documents_are_those_of_the_data(task, tmp_path):
    data = task(licence="CC BY 3.0", name="Sarcomas")
    out = tmp_path / "sarcoma_lora16"
    new_bundle(data, out, "lora16", regions={"any": [1]})
    metadata = config(out, "metadata.json")
    image, pred = (
        metadata["network_data_format"][side][key]
        for side, key in (("inputs", "image"), ("outputs", "pred"))
    )
    assert metadata["name"] == "sarcoma_lora16"
    assert image["channel_def"] == {"0": "PET", "1": "T1w", "2": "CT"}
    assert (image["num_channels"], image["spatial_shape"]) == (3, [48, 48, 32])
    assert image["modality"] == "MR, CT, PT"
    assert pred["channel_def"] == {"0": "background", "1": "tumour"}
    assert pred["region_def"] == {"0": "any"}
    licence = (out / "docs" / "data_license.txt").read_text(encoding="utf-8")
    assert "Sarcomas" in licence
    assert "CC BY 3.0" in licence
    assert (out / "LICENSE").is_file()


def test_box_is_that_of_the_body_without_pet(task, tmp_path):
    data = task()
    plan = new_bundle(data, tmp_path / "two", modalities=["ct", "t1w"])
    assert plan["roi_size"].value == [32, 32, 16]
    assert plan["intensity"].value == {"ct": "ct", "t1w": "mr"}


@pytest.mark.parametrize(
    ("channels", "labels", "message"),
    [
        (("$import os", "T1w", "CT"), ("background", "a"), "expected channel names of letters"),
        (("@device", "T1w", "CT"), ("background", "a"), r"got '@device'; change it"),
        (("PET", "T1w", "CT"), ("background", "$__import__('os')"), "expected label names of"),
        (("PET", "T1w", "CT"), ("background", "a/b"), "or pass --regions with other names"),
        (("PET", "T1w", "PET-CT"), ("background", "a"), "expected a name of CT or of PET"),
    ],
)
def test_names_that_a_config_would_evaluate_are_refused(task, tmp_path, channels, labels, message):
    with pytest.raises(ValueError, match=message):
        new_bundle(task(channels, labels), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_texts_of_the_data_set_are_no_code_and_no_facts(task, tmp_path):
    data = task(labels=("background", "a/b ${seed} $x"), name="$import os", licence="@x ${regime}")
    new_bundle(data, tmp_path / "out", regions={"lesion": [1]})
    for path in ("configs/metadata.json", "docs/data_license.txt", "docs/README.md"):
        text = (tmp_path / "out" / path).read_text(encoding="utf-8")
        assert "$import os" not in text
        assert "${" not in text
    defined = config(tmp_path / "out", "metadata.json")["network_data_format"]["outputs"]["pred"]
    assert defined["channel_def"]["1"] == "a/b seed x"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"regime": "lora8"}, "--regime: expected one of baseline, "),
        ({"out": "it's"}, "--out: expected a folder named with letters"),
        ({"epoch": 3}, "--epoch: expected a setting of a segmentation bundle"),
        ({"ckpt_dir": "x"}, "--ckpt_dir: expected a setting of a segmentation bundle that may be"),
        ({"roi_size": [30, 32, 32]}, "--roi_size: expected a list, three multiples of 16"),
        ({"pretrained": "${seed}.pt"}, "--pretrained: expected a path without"),
        ({"out": "there"}, "expected a new folder, found one that is there"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(tmp_path, flags, message):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    out = tmp_path / flags.pop("out", "new")
    with pytest.raises(ValueError, match=message):
        new_bundle(tmp_path / "nowhere", out, **flags)


def test_overwriting_keeps_models(task, tmp_path):
    data, out = task(), tmp_path / "out"
    new_bundle(data, out)
    (out / "models").mkdir()
    (out / "models" / "model.pt").touch()
    new_bundle(data, out, overwrite=True, spacing=[4.0, 4.0, 4.0])
    assert config(out, "train.json")["spacing"] == [4.0, 4.0, 4.0]
    assert (out / "models" / "model.pt").is_file()


def test_generator_leaves_planned_bundles_alone(task, tmp_path):
    write_bundles(tmp_path / "bundles")
    new_bundle(task(), tmp_path / "bundles" / "mine")
    before = (tmp_path / "bundles" / "mine" / PLAN).read_bytes()
    write_bundles(tmp_path / "bundles")
    assert check_bundles(tmp_path / "bundles") == []
    assert (tmp_path / "bundles" / "mine" / PLAN).read_bytes() == before


@pytest.mark.slow
def test_bundle_trains_evaluates_infers_and_packages_without_a_flag(
    task, tmp_path, monai_bundle, monkeypatch
):
    monkeypatch.setattr(package, "build_wheel", lambda out: None)
    labels = ("background", "core", "rim")
    out = tmp_path / "any where" / "sarcoma_lora16"
    nested = {"whole": [1, 2], "core": [1]}
    new_bundle(
        task(labels=labels),
        out,
        "lora16",
        regions=nested,
        epochs=1,
        val_interval=1,
        num_workers=0,
        **SMALL,
    )
    for run_id, files in (
        ("training", "train"),
        ("evaluating", "train,evaluate"),
        ("run", "inference"),
    ):
        names = [str(out / "configs" / f"{file}.json") for file in files.split(",")]
        done = monai_bundle("run", run_id, "--config_file", str(names), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    record = json.loads((out / "models" / "network.json").read_text(encoding="utf-8"))
    assert record["normalization"] == {"PET": "pet", "T1w": "mr", "CT": "ct"}
    assert record["ct_window"] == config(out, "train.json")["ct_window"]
    assert len(list((out / "eval" / "segmentations").glob("c*.nii.gz"))) == 5
    packed = package_bundle(out, tmp_path / "packages")
    assert packed.trained
    with zipfile.ZipFile(packed.archive) as archive:
        held = archive.read("sarcoma_lora16/configs/inference.json")
    assert json.loads(held)["trained"]["default"]["intensity"] == record["normalization"]


def test_model_of_other_sizes_is_baked_into_the_package(task, tmp_path, monkeypatch):
    from lora_ext import ChannelLoRAUNETR
    from lora_ext.weights import save_model

    monkeypatch.setattr(package, "build_wheel", lambda out: None)
    out = tmp_path / "sarcoma_lora16"
    new_bundle(task(), out, "lora16")
    names = ["PET", "T1w", "CT"]
    network = ChannelLoRAUNETR(
        3, 1, (32, 32, 16), regime="lora", lora_rank=16, modalities=names, **SMALL
    )
    network.config.update(intensity="auto", ct_window=[-10, 10], regions={"tumour": [1]})
    save_model(network, out / "models" / "model.pt")
    with zipfile.ZipFile(package_bundle(out, tmp_path / "packages").archive) as archive:
        train = json.loads(archive.read("sarcoma_lora16/configs/train.json"))
    assert train["roi_size"] == [32, 32, 16]
    assert (train["intensity"], train["ct_window"]) == ("auto", [-10, 10])


def test_bundle_passes_the_zoos_verification(task, tmp_path, root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "ci"))
    from verify_bundles import main

    out = tmp_path / "sarcoma_lora16"
    new_bundle(task(), out, "lora16", **SMALL)
    main(bundle=str(out))
