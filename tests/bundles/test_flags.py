"""What is given on the command line: stray words, unknown and wrong flags, other settings."""

import json
import re

import pytest

from lora_ext.bundles.flags import running_workflow
from lora_ext.bundles.starting import user_error

TINY = {
    "roi_size": [32, 32, 16], "feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_layers": 4,
    "num_heads": 2,
}  # fmt: skip
FILES = {
    "training": ["train"],
    "evaluating": ["train", "evaluate"],
    "run": ["inference"],
}


@pytest.fixture
def command(root, monai_bundle, tmp_path):
    """A function that runs a bundle as a user does, on data that is not there."""

    def run(run_id, *words, name="prostatex_lora16", **flags):
        folder = root / "bundles" / name / "configs"
        files = [str(folder / f"{file}.json") for file in FILES[run_id]]
        given = {"dataset_dir": tmp_path / "nowhere", "output_dir": tmp_path / "out",
                 "ckpt_dir": tmp_path / "models"} | flags  # fmt: skip
        arguments = [part for key, value in given.items() for part in (f"--{key}", str(value))]
        return monai_bundle(
            "run", run_id, *words, "--config_file", str(files), *arguments, cwd=tmp_path
        )

    return run


def sentence(done, tmp_path):
    """The one sentence of a run that did not begin: nothing was read, nothing was written."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "nowhere" not in done.stderr.rsplit("error: ", 1)[1]
    assert not (tmp_path / "out").exists()
    return next(line for line in done.stderr.splitlines() if line.startswith("error: "))


@pytest.mark.slow
@pytest.mark.parametrize("run_id", FILES)
def test_stray_word_ends_the_run_before_anything_is_read(command, tmp_path, run_id):
    found = sentence(command(run_id, "1", name="brats_baseline"), tmp_path)
    assert "found the stray word '1'" in found
    assert "in quotes" in found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run_id", "flag", "value", "message"),
    [
        ("training", "epoch", 5, "--epoch: nothing in .* uses it; did you mean --epochs?"),
        ("training", "learning_rte", 0.1, "did you mean --learning_rate?"),
        ("training", "data_dir", "x", "did you mean --dataset_dir?"),
        ("training", "train#trainr", 1, "--train#trainr: nothing .* did you mean --train#trainer"),
        ("run", "epochs", 5, "--epochs: nothing .*; it is a setting of another config"),
        ("evaluating", "masking_ratio", 0.5, "it is a setting of another config"),
        ("training", "resume", "false", "--resume: expected a boolean, True, False; got 'false'"),
        ("evaluating", "device", "gpu0", "--device: expected a device, .*; got 'gpu0'"),
        ("run", "sw_overlap", 1.0, "--sw_overlap: expected a number, 0 to below 1; got 1.0"),
    ],
)
def test_wrong_flag_ends_the_run_before_anything_is_read(
    command, tmp_path, run_id, flag, value, message
):
    found = sentence(command(run_id, **{flag: value}), tmp_path)
    assert re.search(message, found), found


def test_config_that_is_read_by_hand_has_no_flags():
    assert running_workflow() is None


@pytest.fixture
def trained(run_workflow, tasks, tmp_path):
    """A function that runs a small `prostatex_lora16`, trained for one epoch."""

    def run(kind, **settings):
        places = {"dataset_dir": str(tasks["prostatex"]), "num_workers": 0}
        return run_workflow("prostatex_lora16", kind, **places, **settings)

    run("train", **TINY, pretrained="none", epochs=1, crops_per_case=1, lora_rank=3,
        spacing=[1.0, 1.0, 2.0])  # fmt: skip
    return run


def test_model_is_used_as_its_record_says(trained, tmp_path):
    """No size, region or spacing is repeated."""
    for kind in ("evaluate", "infer"):
        parser = trained(kind).parser
        assert parser.get_parsed_content("network_def").config["lora_rank"] == 3
        assert parser.get_parsed_content("spacing") == [1.0, 1.0, 2.0]
    metrics = json.loads((tmp_path / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["seen_in_training"] == []


@pytest.mark.parametrize("kind", ["evaluate", "infer"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spacing", [3.0, 3.0, 3.0]),
        ("regions", {"TZ": [2], "PZ": [1]}),
        ("regions", {"PZ": [1]}),
        ("modalities", ["ADC", "T2"]),
        ("hidden_size", 48),
        ("lora_alpha", 1.0),
        ("num_heads", 4),
    ],
)
def test_flag_that_contradicts_the_record_ends_the_run(trained, kind, name, value):
    with pytest.raises(RuntimeError) as error:
        trained(kind, **{name: value})
    assert f"--{name}: got" in str(error.value.__cause__)
    assert "but the model was trained with" in str(error.value.__cause__)


def test_cases_that_were_trained_on_are_named(trained, tmp_path):
    trained("evaluate", fold=1)
    metrics = json.loads((tmp_path / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    record = json.loads((tmp_path / "models" / "network.json").read_text(encoding="utf-8"))
    scored = [case["case"] for case in metrics["cases"]]
    assert scored
    assert metrics["seen_in_training"] == scored
    assert set(scored) <= set(record["trained_on"])
    page = (tmp_path / "evaluate" / "report.html").read_text(encoding="utf-8")
    assert "The network was trained on" in page


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("fold", 1, "--fold 0 then, 1 now"),
        ("learning_rate", 0.1, "--learning_rate 0.005 then, 0.1 now"),
        ("regions", {"TZ": [2], "PZ": [1]}, "--regions"),
        ("modalities", ["ADC", "T2"], "--modalities"),
        ("lora_alpha", 1.0, "--lora_alpha"),
        ("num_heads", 4, "--num_heads 2 then, 4 now"),
        ("seed", 7, "--seed 0 then, 7 now"),
    ],
)
def test_run_is_not_resumed_with_other_settings(trained, name, value, said):
    given = {**TINY, "pretrained": "none", "epochs": 1, "crops_per_case": 1, "lora_rank": 3}
    given |= {"spacing": [1.0, 1.0, 2.0], "resume": True, name: value}
    with pytest.raises(RuntimeError) as error:
        trained("train", **given)
    sentence = str(user_error(error.value))
    assert "was written by a run with other settings" in sentence
    assert said in sentence
