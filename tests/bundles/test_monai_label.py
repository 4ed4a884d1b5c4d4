"""A bundle as MONAI Label's server uses it; ``ci/label_check.sh`` asks the real server."""

import json
import re
import subprocess
import sys

import monai.bundle
import nibabel as nib
import numpy as np
import pytest

from lora_ext import ChannelLoRAUNETR
from lora_ext.bundles.generator import bundle_facts
from lora_ext.data import read_task
from lora_ext.data.regions import own_labels
from lora_ext.weights import save_encoder

FACTS = bundle_facts()
SIZES = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_layers": 4, "num_heads": 2}
NAME = "prostatex_lora16"


@pytest.fixture
def request_round(bundle, tasks):
    """A function that gives what ``monailabel/tasks/train/bundle.py`` (0.8.5) passes to MONAI."""

    def arguments(epochs, labels=None, training=4, **tracking):
        labels = tasks["prostatex"] / "labelsTr" if labels is None else labels
        images = sorted((tasks["prostatex"] / "imagesTr").iterdir())
        data = [{"image": str(path), "label": str(labels / path.name)} for path in images]
        handlers = json.loads((bundle / "configs" / "train.json").read_text(encoding="utf-8"))[
            "train"
        ]["handlers"]
        if (bundle / "models" / "model.pt").is_file():
            loader = {
                "_target_": "CheckpointLoader",
                "load_path": str(bundle / "models" / "model.pt"),
                "load_dict": {"model": "$@network"},
                "strict": False,
            }
            handlers.insert(0, loader)
        return {
            "run_id": "run",
            "init_id": None,
            "final_id": None,
            "meta_file": str(bundle / "configs" / "metadata.json"),
            "config_file": str(bundle / "configs" / "train.json"),
            "bundle_root": str(bundle),
            "train#trainer#max_epochs": epochs,
            "train#dataset#data": data[:training],
            "device": "cpu",
            "train#handlers": handlers,
            "validate#dataset#data": data[training:],
            **tracking,
        }

    return arguments


@pytest.fixture
def train(request_round):
    """A function that trains a round in this process, as MONAI Label does."""

    def run(epochs, **choices):
        monai.bundle.run(**request_round(epochs, **choices))

    return run


def validated(text):
    """Validation ``pooled_dice`` by epoch, out of what a run printed."""
    lines = re.findall(r"epoch (\d+)/\d+: validation pooled_dice (\d\.\d+)", text)
    return {int(epoch): float(dice) for epoch, dice in lines}


@pytest.mark.parametrize("name", FACTS)
def test_metadata_names_the_values_of_the_label_map_that_the_bundle_writes(root, tasks, name):
    metadata = json.loads(
        (root / "bundles" / name / "configs" / "metadata.json").read_text(encoding="utf-8")
    )
    output = metadata["network_data_format"]["outputs"]["pred"]
    written = {0, *own_labels(FACTS[name]["regions"]).values()}
    labels = {int(value): label for value, label in output["channel_def"].items()}
    assert set(labels) == written
    assert labels == read_task(tasks[FACTS[name]["dataset"]]).labels
    assert list(output["region_def"].values()) == list(FACTS[name]["regions"])
    assert len(output["region_def"]) == output["num_channels"]


def test_round_from_a_model_improves_it_and_the_next_one_starts_from_the_best(model, train, capsys):
    before = model.read_bytes()
    train(epochs=4)
    text = capsys.readouterr().out
    assert "continuing from the whole model" in text
    first = validated(text)
    assert set(first) == {0, 1, 2, 3, 4}
    assert max(first.values()) > first[0]
    assert model.read_bytes() != before
    train(epochs=1)
    assert validated(capsys.readouterr().out)[0] == pytest.approx(max(first.values()), abs=1e-4)


def test_round_that_makes_the_model_worse_leaves_it_as_it_was(
    model, train, capsys, tasks, tmp_path
):
    train(epochs=3)
    before = model.read_bytes()
    capsys.readouterr()
    train(epochs=3, labels=emptied_labels(tasks["prostatex"], tmp_path / "emptied"))
    dice = validated(capsys.readouterr().out)
    assert dice[0] > max(dice[epoch] for epoch in (1, 2, 3))
    assert model.read_bytes() == before


def emptied_labels(task, folder):
    """Label maps of one voxel per zone, but for the case that validates."""
    folder.mkdir()
    paths = sorted((task / "labelsTr").iterdir())
    for path in paths[:-1]:
        label = nib.load(path)
        zones = np.zeros(label.shape, np.uint8)
        zones[24, 24, 11:13] = 1, 2
        nib.save(nib.Nifti1Image(zones, label.affine), folder / path.name)
    (folder / paths[-1].name).write_bytes(paths[-1].read_bytes())
    return folder


def test_first_round_without_a_model_starts_from_the_encoder_in_the_folder_of_models(
    bundle, train, capsys
):
    encoder = ChannelLoRAUNETR(1, 1, (32, 32, 16), regime="finetune", **SIZES).encoder
    path = bundle / "models" / "encoder.safetensors"
    path.parent.mkdir()
    save_encoder(encoder.state_dict(), path, img_size=(32, 32, 16), num_heads=2)
    train(epochs=1)
    text = capsys.readouterr().out
    assert "encoder.safetensors: " in text
    assert set(validated(text)) == {1}  # nothing was validated before training
    assert (bundle / "models" / "model.pt").is_file()


def test_round_without_a_case_to_validate_on_is_refused_before_it_starts(model, train):
    with pytest.raises(RuntimeError) as error:
        train(epochs=1, training=5)
    assert "val_split above 0" in str(error.value.__cause__)


def test_round_leaves_one_file_that_the_server_would_offer_as_a_model(model, train):
    train(epochs=1)
    assert [path.name for path in model.parent.glob("*.pt")] == ["model.pt"]


@pytest.mark.slow
def test_tracked_round_is_one_run_with_the_model_it_started_from_as_step_0(
    model, request_round, read_runs, tmp_path
):
    arguments = request_round(epochs=2, tracking="mlflow", experiment_name=NAME)
    (tmp_path / "round.json").write_text(json.dumps(arguments), encoding="utf-8")
    # In a process of its own: sqlalchemy's warnings about mlflow would be errors in this one.
    code = "import json, sys, monai.bundle; monai.bundle.run(**json.load(open(sys.argv[1])))"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, tmp_path / "round.json"], check=True
    )
    (run,) = read_runs(f"sqlite:///{model.parents[1]}/eval/mlruns.db")
    assert (run["experiment"], run["status"]) == (NAME, "FINISHED")
    assert [step for step, _ in run["metrics"]["val_pooled_dice"]] == [0, 1, 2]
    assert len(run["metrics"]["train_loss"]) == 2 * 4
