"""Every bundle, run as MONAI runs it: train one epoch, evaluate, infer."""

import copy
import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from lora_ext.bundles.generator import bundle_facts
from lora_ext.networks.lora import ChannelLoRALinear
from lora_ext.networks.regimes import REGIMES, parameter_parts

FACTS = bundle_facts()
TINY = {
    "roi_size": [32, 32, 16],
    "feature_size": 4,
    "hidden_size": 24,
    "mlp_dim": 32,
    "num_layers": 4,
    "num_heads": 2,
    "num_workers": 0,
    "sw_overlap": 0.0,
}
TRAINING = {"epochs": 2, "batch_size": 2, "crops_per_case": 1, "cache_rate": 1.0}


@pytest.fixture
def run_bundle(run_workflow, tasks):
    """A function that runs one segmentation bundle, tiny, on its data set's phantoms."""

    def run(name, kind, before_run=lambda workflow: None, **settings):
        training = TRAINING if kind == "train" else {}
        own = {"dataset_dir": str(tasks[FACTS[name]["dataset"]]), **TINY, **training}
        # logging_file=False: the bundle's logging.conf would take the log away from caplog
        return run_workflow(name, kind, before_run, logging_file=False, **{**own, **settings})

    return run


@pytest.mark.parametrize("name", FACTS)
def test_bundle_trains_evaluates_and_infers_without_a_flag_for_its_encoder(
    run_bundle, tmp_path, tasks, caplog, name
):
    start = {}

    def remember(workflow):
        network = workflow.parser.get_parsed_content("network_def")
        start.update(copy.deepcopy(parameter_parts(network)))

    trained = run_bundle(name, "train", remember).parser.get_parsed_content("network_def")
    check_what_was_trained(trained, start, REGIMES[FACTS[name]["regime"]].trained)
    check_saved_files(tmp_path / "models", trained)
    assert ("RANDOM weights" in caplog.text) == REGIMES[FACTS[name]["regime"]].pretrained
    run_bundle(name, "evaluate")
    check_report(tmp_path / "evaluate", FACTS[name]["regions"])
    run_bundle(name, "infer")
    check_segmentations(tmp_path / "infer", tasks[FACTS[name]["dataset"]], FACTS[name]["regions"])


def check_what_was_trained(network, start, trained):
    for part, parameters in parameter_parts(network).items():
        changed = [not torch.equal(a, b) for a, b in zip(start[part], parameters, strict=True)]
        assert all(changed) if part in trained else not any(changed), part
    for layer in (m for m in network.modules() if isinstance(m, ChannelLoRALinear)):
        assert layer.lora_B.flatten(1).any(dim=1).all()  # zero at the start, for every channel


def check_saved_files(folder, network):
    files = {p.name for p in folder.iterdir() if p.name[0] != "."}
    adapter = {"adapter.safetensors"} if network.regime in ("lora", "frozen") else set()
    assert files == {"model.pt", "network.json", "last.ckpt"} | adapter
    state = torch.load(folder / "model.pt", weights_only=True)
    copy.deepcopy(network).load_state_dict(state, strict=True)
    assert json.loads((folder / "network.json").read_text(encoding="utf-8"))["encoder"] == "random"


def check_report(folder, regions):
    report = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader((folder / "cases.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["region"] for row in rows} == set(regions)
    assert len(rows) == len(regions) * report["summary"]["cases"]
    assert 0 <= report["summary"]["pooled_dice"] <= 1
    assert report["encoder"] == "random"
    assert "Encoder: random" in (folder / "report.html").read_text(encoding="utf-8")
    cases = {row["case"] for row in rows}
    assert {p.stem for p in (folder / "figures").iterdir()} == cases


def check_segmentations(folder, task, regions):
    inputs = sorted((task / "imagesTs").iterdir())
    written = {p.name for p in folder.iterdir() if p.name[0] != "."}
    assert written == {p.name for p in inputs}
    for path in inputs:
        image, segmentation = nib.load(path), nib.load(folder / path.name)
        assert segmentation.shape == image.shape[:3]
        np.testing.assert_allclose(segmentation.affine, image.affine, atol=1e-5)
        values = set(np.unique(np.asarray(segmentation.dataobj)).tolist())
        assert values <= {0} | {label for labels in regions.values() for label in labels}


def test_evaluation_agrees_with_the_validation_during_training(run_bundle, tmp_path):
    """The phantoms have 1 mm voxels, so resampling does nothing and the two must agree."""
    workflow = run_bundle("brats_lora32", "train", val_interval=1)
    best = workflow.parser.get_parsed_content("validate#evaluator").state.best_metric
    run_bundle("brats_lora32", "evaluate")
    report = json.loads((tmp_path / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    assert report["summary"]["pooled_dice"] == pytest.approx(best, abs=1e-6)


def test_evaluation_whose_start_was_skipped_scores_the_trained_model_all_the_same(
    run_bundle, tmp_path
):
    """A stray word on the command line makes MONAI skip ``initialize``."""
    run_bundle("prostatex_lora16", "train")
    run_bundle("prostatex_lora16", "evaluate")
    report = tmp_path / "evaluate" / "metrics.json"
    expected = json.loads(report.read_text(encoding="utf-8"))
    report.unlink()
    run_bundle("prostatex_lora16", "evaluate", initialize=False)
    assert json.loads(report.read_text(encoding="utf-8")) == expected


def test_channels_are_chosen_by_name_whatever_their_order_in_the_file(
    run_bundle, tmp_path, tasks, monkeypatch
):
    permuted = permute_channels(tasks["brats"], tmp_path / "permuted", [2, 0, 3, 1])
    losses = {}
    for folder in (tasks["brats"], permuted):
        evaluator = run_bundle(
            "brats_lora32", "train", dataset_dir=str(folder), modalities=["t1gd", "FLAIR"]
        ).parser.get_parsed_content("validate#evaluator")
        losses[folder] = evaluator.state.metrics
    assert losses[tasks["brats"]] == losses[permuted]


def permute_channels(task, out, order):
    """Copy a task with its channels, and their names, in another order."""
    description = json.loads((task / "dataset.json").read_text(encoding="utf-8"))
    names = [description["modality"][str(i)] for i in order]
    description["modality"] = {str(i): name for i, name in enumerate(names)}
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (out / folder).mkdir(parents=True)
        for path in (task / folder).iterdir():
            image = nib.load(path)
            data = np.asarray(image.dataobj)
            data = data if data.ndim == 3 else data[..., order]
            nib.save(nib.Nifti1Image(data, image.affine, image.header), out / folder / path.name)
    (out / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return out


def test_inference_takes_one_file_per_channel(run_bundle, tmp_path, tasks):
    run_bundle("prostatex_lora16", "train")
    run_bundle("prostatex_lora16", "infer")
    folder = tmp_path / "files"
    folder.mkdir()
    source = next((tasks["prostatex"] / "imagesTs").iterdir())
    image = nib.load(source)
    case = source.name.removesuffix(".nii.gz")
    for index, modality in enumerate(("T2", "ADC")):
        data = np.asarray(image.dataobj)[..., index]
        nib.save(nib.Nifti1Image(data, image.affine), folder / f"{case}_{modality}.nii.gz")
    run_bundle(
        "prostatex_lora16", "infer", dataset_dir=str(folder), output_dir=str(tmp_path / "one")
    )
    whole = nib.load(tmp_path / "infer" / source.name)
    split = nib.load(tmp_path / "one" / source.name)
    np.testing.assert_array_equal(np.asarray(whole.dataobj), np.asarray(split.dataobj))
    np.testing.assert_allclose(whole.affine, split.affine)


def test_same_seed_gives_the_same_losses(run_bundle):
    runs = [
        run_bundle("prostatex_baseline", "train").parser.get_parsed_content("train#trainer").state
        for _ in range(2)
    ]
    assert runs[0].output[0]["loss"] == runs[1].output[0]["loss"]


def test_resumed_run_goes_on_after_its_last_epoch(run_bundle, tmp_path):
    run_bundle("prostatex_lora16", "train", val_interval=1)
    before = torch.load(tmp_path / "models" / "last.ckpt", weights_only=True)
    before["epoch"], before["iteration"] = 1, before["iteration"] // 2
    before["lr_scheduler"]["last_epoch"] = before["iteration"]
    torch.save(before, tmp_path / "models" / "last.ckpt")
    workflow = run_bundle("prostatex_lora16", "train", resume=True)
    state = workflow.parser.get_parsed_content("train#trainer").state
    assert (state.epoch, state.iteration) == (2, 2 * before["iteration"])
