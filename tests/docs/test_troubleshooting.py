"""Every sentence of the troubleshooting page is one that the package raises."""

import errno
import json
import re
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from lora_ext import files
from lora_ext.bundles import bundle_root
from lora_ext.data import fold_cases, inference_cases
from lora_ext.files import whole_file
from lora_ext.images import pending_cases
from lora_ext.images.dicom import open_series
from lora_ext.training import LastCheckpoint, processes, tracking
from lora_ext.training.divergence import FiniteTraining
from lora_ext.training.folders import check_no_model, prepare_folders
from lora_ext.weights import load_adapter, load_encoder, load_model, save_adapter
from lora_ext.weights.model import save_model
from lora_ext.weights.reading import read_tensors
from lora_ext.weights.start import start_encoder

PAGE = Path(__file__).resolve().parents[2] / "docs/troubleshooting.md"
SENTENCES = re.findall(r"^\*\*`(.+)`\*\*$", PAGE.read_text(encoding="utf-8"), re.M)
REGIONS = {"lesion": [1]}


def fits(sentence, message):
    pattern = ".+".join(re.escape(part) for part in sentence.split("…"))
    return re.fullmatch(pattern, message, re.S) is not None


def save(path, voxels, spacing=1.0):
    nib.save(nib.Nifti1Image(voxels, np.diag([spacing, spacing, spacing, 1.0])), path)


@pytest.fixture
def task(tmp_path):
    """A good task of two cases with two channels."""
    image, label = np.ones((8, 8, 8, 2), np.float32), np.ones((8, 8, 8), np.uint8)
    for case in "ab":
        save(tmp_path / f"{case}.nii.gz", image)
        save(tmp_path / f"{case}_label.nii.gz", label)
    training = [{"image": f"{c}.nii.gz", "label": f"{c}_label.nii.gz"} for c in "ab"]
    content = {"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "lesion"}}
    (tmp_path / "dataset.json").write_text(
        json.dumps({**content, "training": training}), encoding="utf-8"
    )
    return tmp_path


def read(folder, modalities=("T2", "ADC")):
    fold_cases(folder, modalities, REGIONS, fold=0, num_folds=2, split_seed=0)


def other_place(task):
    label = nib.load(task / "a_label.nii.gz")
    affine = label.affine + np.array([[0, 0, 0, 5.0]] + [[0, 0, 0, 0]] * 3)
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.uint8), affine), task / "a_label.nii.gz")


def not_finite(task):
    image = np.ones((8, 8, 8, 2), np.float32)
    image[1, 2, 3, 0] = np.nan
    save(task / "a.nii.gz", image)


def truncated(task):
    whole = (task / "a.nii.gz").read_bytes()
    (task / "a.nii.gz").write_bytes(whole[: len(whole) // 2])


SPOILT = {
    "channels (": lambda t: save(t / "a.nii.gz", np.ones((8, 8, 8, 3), np.float32)),
    "expected the affine": other_place,
    "every label": lambda t: save(t / "a_label.nii.gz", np.full((8, 8, 8), 7, np.uint8)),
    "non-finite": not_finite,
    "damaged or": truncated,
}


def sentence_with(words):
    (sentence,) = [s for s in SENTENCES if words in s]
    return sentence


@contextmanager
def refused(words):
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        assert fits(sentence_with(words), str(error)), str(error)  # noqa: PT017 (a pattern, once)
    else:
        pytest.fail("nothing was raised")


TESTED = {*SPOILT}


@pytest.mark.parametrize("words", SPOILT)
def test_spoilt_task(task, words):
    SPOILT[words](task)
    with refused(words):
        read(task)


def covers(*words):
    """Counts sentences as covered by the test below it."""
    TESTED.update(words)
    return lambda test: test


@covers("expected the shape")
def test_channels_on_different_grids(tmp_path):
    for case in "ab":
        for name, depth in (("T2", 8), ("ADC", 7), ("seg", 8)):
            save(tmp_path / f"{case}_{name}.nii.gz", np.ones((8, 8, depth), np.uint8))
    with refused("expected the shape"):
        read(tmp_path)


@covers("found no image")
def test_a_folder_without_images(tmp_path):
    with refused("found no image"):
        read(tmp_path)


@covers("of the regions")
def test_labels_that_do_not_fit_the_regions(tmp_path):
    for case in "ab":
        save(tmp_path / f"{case}.nii.gz", np.ones((8, 8, 8, 2), np.float32))
        save(tmp_path / f"{case}_seg.nii.gz", np.full((8, 8, 8), 4, np.uint8))
    with refused("of the regions"):
        read(tmp_path)


@covers("no such folder")
def test_missing_folder(tmp_path):
    with refused("no such folder"):
        read(tmp_path / "nowhere")


@covers("modality '")
def test_unknown_modality(task):
    with refused("modality '"):
        read(task, ("T2", "DWI"))


@covers("single channel")
def test_a_file_of_one_channel_in_a_plain_folder(tmp_path):
    save(tmp_path / "a.nii.gz", np.ones((8, 8, 8), np.float32))
    with refused("single channel"):
        inference_cases(tmp_path, ["T2", "ADC"])


@covers("validation: found")
def test_more_processes_than_cases(monkeypatch):
    monkeypatch.setattr(processes.idist, "get_world_size", lambda: 3)
    with refused("validation: found"):
        processes.check_shares([{"case": "a"}])


@covers("starts from a random encoder")
def test_encoder_that_the_regime_does_not_take(small_network):
    with refused("starts from a random encoder"):
        start_encoder(small_network(regime="baseline"), "vit.pt")


@covers("…: …; this network has …")
def test_encoder_of_another_size(small_network, tmp_path):
    torch.save(small_network(hidden_size=96).encoder.state_dict(), tmp_path / "vit.pt")
    with refused("…: …; this network has …"):
        load_encoder(small_network(), tmp_path / "vit.pt")


@covers("no trained model", "other settings")
def test_models(small_network, tmp_path):
    with refused("no trained model"):
        load_model(small_network(), tmp_path / "model.pt")
    save_model(small_network(), tmp_path / "model.pt")
    with refused("other settings"):
        load_model(small_network(feature_size=4), tmp_path / "model.pt")


@covers("another encoder")
def test_adapter_of_another_encoder(small_network, tmp_path):
    save_adapter(small_network(seed=0), tmp_path / "adapter.safetensors")
    with refused("another encoder"):
        load_adapter(small_network(seed=1), tmp_path / "adapter.safetensors")


@covers("give --bundle_root")
def test_no_bundle_near(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused("give --bundle_root"):
        bundle_root("brats_lora32")


@covers("mlflow")
def test_tracking_without_mlflow(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "config.json").write_text("MLFlowHandler", encoding="utf-8")
    with refused("mlflow"):
        tracking.check_tracking(str(tmp_path / "config.json"), tmp_path)


@covers("DICOM series")
def test_two_series_in_one_folder(write_image, tmp_path):
    voxels = np.arange(64, dtype=np.int16).reshape(4, 4, 4)
    for number in "12":
        write_image(tmp_path / number, voxels, np.eye(4), uid=f"1.2.3.{number}")
    for path in (tmp_path / "2").iterdir():
        path.rename(tmp_path / "1" / f"other_{path.name}")
    with refused("DICOM series"):
        open_series(str(tmp_path / "1"))


@covers("the loss is")
def test_a_loss_that_is_no_number(tmp_path):
    engine = Engine(lambda engine, batch: None)
    engine.optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    FiniteTraining(torch.nn.Linear(1, 1), tmp_path).attach(engine)
    engine.state.epoch, engine.state.iteration, engine.state.epoch_length = 1, 2, 2
    engine.state.batch = {"case": ["a", "b"]}
    engine.state.output = {"loss": torch.tensor(float("nan"))}
    with refused("the loss is"):
        engine.fire_event(IterationEvents.LOSS_COMPLETED)


@covers("whose loading can run code")
def test_file_that_would_run_code(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "vit.pt")
    with refused("whose loading can run code"):
        read_tensors(tmp_path / "vit.pt")


@covers("damaged file, one that")
def test_weights_that_were_cut_short(small_network, tmp_path):
    save_model(small_network(), tmp_path / "model.pt")
    whole = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(whole[: len(whole) // 2])
    with refused("damaged file, one that"):
        load_model(small_network(), tmp_path / "model.pt")


@covers("expected a plain tensor")
def test_weights_that_are_not_finite(small_network, tmp_path):
    network = small_network()
    torch.nn.init.constant_(network.decoder.out.conv.conv.bias, float("nan"))
    save_model(network, tmp_path / "model.pt")
    with refused("expected a plain tensor"):
        load_model(small_network(), tmp_path / "model.pt")


@covers("written by a run")
def test_resumed_with_another_number_of_epochs(tmp_path):
    validator = Engine(lambda engine, batch: None)
    validator.state.best_metric, validator.state.best_metric_epoch = -1, -1
    for epochs, resume in ((2, False), (3, True)):
        trainer = Engine(lambda engine, batch: None)
        LastCheckpoint(tmp_path, {}, validator, resume=resume).attach(trainer)
        if resume:
            with refused("written by a run"):
                trainer.run([0], max_epochs=epochs)
        else:
            trainer.run([0], max_epochs=epochs)


@covers("earlier training", "can be made and written", "while it was written", "run at work")
def test_folders_of_a_training(tmp_path, monkeypatch):
    (tmp_path / "model.pt").touch()
    with refused("earlier training"):
        check_no_model(tmp_path)
    with refused("can be made and written"):
        prepare_folders(tmp_path / "model.pt")
    with refused("while it was written"), whole_file(tmp_path / "model.pt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(files, "_locked", taken)
    with refused("run at work"):
        files.hold_folder(tmp_path / "other", "output_dir")


def taken(path):
    raise BlockingIOError


@covers("folder of the data", "leave out the cases", "segmentations of the …")
def test_folders_of_an_inference(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "model.pt").touch()
    cases = [{"case": "a", "image": tmp_path / "images" / "a.nii.gz"}]
    images, out, model = tmp_path / "images", tmp_path / "out", tmp_path / "model.pt"
    with refused("folder of the data"):
        pending_cases(cases, images, images, ".nii.gz", model)
    pending_cases(cases, images, out, ".nii.gz", model)
    (out / "a.nii.gz").touch()
    with refused("leave out the cases"):
        pending_cases(cases, images, out, ".nii.gz", model)
    model.write_bytes(b"other")
    with refused("segmentations of the …"):
        pending_cases(cases, images, out, ".nii.gz", model, resume=True)


def test_every_sentence_of_the_page_is_tested():
    assert {sentence_with(words) for words in TESTED} == set(SENTENCES)
