"""The probe on a small labelled task: what is in the features is found, and what is not is not."""

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.networks.nets import SwinUNETR, ViT

from lora_ext.pretraining.probe import Probe, features, probe_encoder
from lora_ext.weights import network_for_encoder, save_encoder

SIZES = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 4, "num_heads": 4}
SIZE = (48, 48, 32)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Six cases; label 1 fills patches in which T2 is bright, label 2 is drawn by lot in others."""
    folder = tmp_path_factory.mktemp("probe") / "Task"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    cases = [f"case{i}" for i in range(6)]
    for case in cases:
        image = rng.normal(100, 10, (*SIZE, 2))
        bright, lot = (
            np.kron(rng.random((3, 3, 2)) < p, np.ones((16, 16, 16))) for p in (0.4, 0.5)
        )
        image[..., 1] += 40 * bright
        label = np.where(bright > 0, 1, 2 * lot)
        parts = {"imagesTr": image.astype(np.float32), "labelsTr": label.astype(np.uint8)}
        for part, voxels in parts.items():
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / part / f"{case}.nii.gz")
    content = {
        "modality": {"0": "T1", "1": "T2"}, "labels": {"0": "air", "1": "bright", "2": "lot"},
        "training": [{"image": f"imagesTr/{c}.nii.gz", "label": f"labelsTr/{c}.nii.gz"}
                     for c in cases],
        "test": [],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """An encoder whose tokens carry the mean of their patch."""
    torch.manual_seed(0)
    vit = ViT(1, (32, 32, 16), 16, **SIZES)
    with torch.no_grad():
        weight = vit.patch_embedding.patch_embeddings.weight
        weight.zero_()
        weight[0] = 1e-2
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    save_encoder(vit.state_dict(), path, img_size=(32, 32, 16), num_heads=4)
    return path


@pytest.fixture(scope="module")
def found(task, seeing):
    return probe_encoder(seeing, task)


def test_probe_finds_what_the_features_hold_and_nothing_else(found):
    ours, random = (np.array(scores, dtype=float) for scores in (found.pretrained, found.random))
    assert found.labels == ["bright", "lot"]
    assert ours[:, 0].mean() > 0.5
    assert ours[:, 1].mean() < 0.45  # 0.29 is known by what is not bright
    assert ours[:, 0].mean() > random[:, 0].mean()


def test_folds_are_of_whole_cases_and_every_case_is_held_out_once(found):
    assert sorted(name for fold in found.cases for name in fold) == [f"case{i}" for i in range(6)]
    assert len(found.cases) == len(found.pretrained) == 5
    assert found.patches == 6 * 18


def test_same_seed_same_scores(found, task, seeing):
    assert probe_encoder(seeing, task).record() == found.record()


def test_channels_are_chosen_by_name(task, seeing):
    blind = probe_encoder(seeing, task, ["T1"], cases=4)
    assert np.array(blind.pretrained, dtype=float)[:, 0].mean() < 0.15
    assert sum(map(len, blind.cases)) == 4


def test_table_says_both_and_how_often_it_was_better(found):
    probe = Probe("e", ["a", "b"], [["x"], ["y"]], 9, [[0.5, None], [0.7, 0.1]],
                  [[0.1, None], [0.9, 0.1]])  # fmt: skip
    lines = str(probe).splitlines()
    assert lines[1].split() == ["a", "0.600", "±", "0.100", "0.500", "±", "0.400"]
    assert lines[2].split() == ["b", "0.100", "±", "0.000", "0.100", "±", "0.000"]
    assert "2 cases, 9 patches" in lines[-1]
    assert lines[-1].endswith("better than random weights in 1 of 2")
    assert "bright" in str(found)


def test_too_few_cases_are_refused(task, seeing):
    with pytest.raises(ValueError, match="expected 3 labelled cases or more to probe, got 2"):
        probe_encoder(seeing, task, cases=2)


def test_features_of_a_vit_are_its_taps_in_the_order_of_the_patches(seeing):
    network = network_for_encoder(seeing, 2, 1, (32, 32, 16), regime="frozen").eval()
    image = torch.zeros(2, 32, 32, 16)
    image[1, 16:, :16] = 5.0
    rows = features(network, image)
    assert rows.shape == (4, 4 * 2 * 48)
    with torch.no_grad():
        taps = network.encoder(image[None])
    expected = torch.cat([torch.cat([tap[0, 0], tap[0, 1]], dim=1) for tap in taps], dim=1)
    assert torch.allclose(rows, expected, atol=1e-6)


def test_features_of_a_swin_are_brought_to_the_same_patches(tmp_path):
    torch.manual_seed(0)
    swin = SwinUNETR(1, 1, feature_size=12)
    torch.save(swin.state_dict(), tmp_path / "swin.pt")
    network = network_for_encoder(tmp_path / "swin.pt", 1, 1, (64, 64, 32), regime="frozen").eval()
    image = torch.rand(1, 64, 64, 32)
    rows = features(network, image)
    assert rows.shape == (4 * 4 * 2, 12 * (1 + 2 + 4 + 8 + 16))
    with torch.no_grad():
        finest, *_, coarsest = swin.swinViT(image[None])
    blocks = finest[0].reshape(12, 4, 8, 4, 8, 2, 8).mean(dim=(2, 4, 6)).flatten(1).T
    assert torch.allclose(rows[:, :12], blocks, atol=1e-5)
    repeated = coarsest[0].repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(rows[:, -192:], repeated.flatten(1).T, atol=1e-5)


def test_verb_prints_the_table_and_writes_it(task, seeing, tmp_path, root):
    command = [sys.executable, "-m", "lora_ext", "probe", "--encoder", str(seeing), "--data",
               str(task), "--modalities", "T2", "--spacing", "[1,1,1]", "--cases", "3", "--out",
               str(tmp_path / "o")]  # fmt: skip
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "R^2 of held-out cases" in done.stdout
    content = json.loads((tmp_path / "o" / "probe.json").read_text(encoding="utf-8"))
    assert content["labels"] == ["bright", "lot"]
    wrong = subprocess.run(
        [*command, "--learning_rate", "1"], cwd=root, capture_output=True, encoding="utf-8",
        check=False,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "error: --learning_rate: expected one of roi_size, spacing" in wrong.stderr
