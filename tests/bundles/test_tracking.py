"""``--tracking mlflow`` from the command line, against a real SQLite store."""

import re
import subprocess
import sys
import time

import pytest

SIZES = {
    "roi_size": [32, 32, 16],
    "hidden_size": 24,
    "mlp_dim": 32,
    "num_layers": 4,
    "num_heads": 2,
    "num_workers": 0,
}
SEGMENTATION = {**SIZES, "feature_size": 4, "sw_overlap": 0.0}
PRETRAINING = {
    **SIZES,
    "decoder_hidden_size": 12,
    "decoder_mlp_dim": 16,
    "decoder_num_layers": 1,
    "decoder_num_heads": 2,
}
TRAINING = {"epochs": 6, "val_interval": 1, "batch_size": 2, "crops_per_case": 1}
FILES = {
    "training": ["train"],
    "evaluating": ["train", "evaluate"],
    "run": ["inference"],
}


@pytest.fixture(scope="module")
def tracked(monai_bundle, pytestconfig):
    """A function that runs a bundle with ``--tracking mlflow``: name, run id, folder, settings."""

    def run(bundle, run_id, cwd, wait=True, **settings):
        configs = pytestconfig.rootpath / "bundles" / bundle / "configs"
        files = [str(configs / f"{name}.json") for name in FILES[run_id]]
        flags = [part for k, v in settings.items() for part in (f"--{k}", v)]
        return monai_bundle(
            "run", run_id, "--config_file", files, "--tracking", "mlflow", *flags,
            cwd=cwd, wait=wait,
        )  # fmt: skip

    return run


def finish(done):
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def segmentation(tracked, read_runs, tasks, tmp_path_factory):
    """A training that is killed and resumed, its evaluation and an inference: runs and folder."""
    folder = tmp_path_factory.mktemp("tracked")
    data = SEGMENTATION | {"dataset_dir": tasks["brats"], "ckpt_dir": folder / "models"}
    data["tracking_uri"] = f"sqlite:///{folder}/eval/mlruns.db"
    train = TRAINING | {"pretrained": "none", "output_dir": folder / "eval"}
    killed = tracked("brats_lora16", "training", folder, wait=False, **data, **train)
    while not (folder / "models" / "last.ckpt").is_file():
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    finish(tracked("brats_lora16", "training", folder, **data, **train, resume=True))
    finish(tracked("brats_lora16", "evaluating", folder, **data, output_dir=folder / "eval"))
    finish(tracked("brats_lora16", "run", folder, **data, output_dir=folder / "infer"))
    return read_runs(data["tracking_uri"]), folder


@pytest.mark.slow
def test_every_run_is_one_finished_run_and_a_resumed_one_goes_on_in_its_own(segmentation):
    runs, _ = segmentation
    names = [re.fullmatch(r"brats_lora16_(\w+?)_\d{8}_\d{6}_\w{4}", run["name"]) for run in runs]
    assert [name[1] for name in names] == ["training", "evaluating", "inference"]
    assert {run["status"] for run in runs} == {"FINISHED"}
    assert {run["experiment"] for run in runs} == {"monai_experiment"}


@pytest.mark.slow
def test_parameters_are_the_settings_of_the_run(segmentation, tasks):
    (training, evaluating, inference), folder = segmentation
    expected = {
        "bundle": "brats_lora16", "regime": "lora", "lora_rank": "16", "learning_rate": "0.005",
        "epochs": "6", "fold": "0", "seed": "0", "pretrained": "none", "roi_size": "[32, 32, 16]",
        "modalities": "['FLAIR', 'T1w', 't1gd', 'T2w']", "dataset_dir": str(tasks["brats"]),
        "ckpt_dir": str(folder / "models"), "output_dir": str(folder / "eval"), "device": "cpu",
        "task": "training",
    }  # fmt: skip
    assert expected.items() <= training["params"].items()
    assert int(training["params"]["trainable_parameters"]) < int(training["params"]["parameters"])
    for run in (evaluating, inference):
        assert run["params"]["lora_rank"] == "16"
        assert not {"learning_rate", "epochs", "pretrained"} & run["params"].keys()


@pytest.mark.slow
def test_metrics_have_a_value_per_step_and_validation(segmentation):
    (training, evaluating, _), _ = segmentation
    metrics = training["metrics"]
    for name in ("val_pooled_dice", "TC", "WT", "ET"):
        assert {step for step, _ in metrics[name]} == set(range(1, 7))
        assert all(0 <= value <= 1 for _, value in metrics[name])
    steps = {step for step, _ in metrics["train_loss"]}
    assert steps == set(range(1, max(steps) + 1))
    assert len(steps) == 6 * 2  # two batches of two of the four cases
    assert metrics["lr_group_0"][0][1] > 0
    best = max(value for _, value in metrics["val_pooled_dice"])
    assert evaluating["metrics"]["val_pooled_dice"][0][1] == pytest.approx(best, abs=1e-6)
    for name in ("pooled_dice", "mean_dice", "TC_dice", "WT_dice", "ET_dice"):
        assert name in evaluating["metrics"]


@pytest.mark.slow
def test_artifacts_are_the_figures_the_report_and_the_executed_config(segmentation, tasks):
    (training, evaluating, inference), folder = segmentation
    panels = [f"validation/epoch_{epoch:04d}.png" for epoch in range(1, 7)]
    assert [path for path in training["artifacts"] if not is_config(path)] == panels
    report = ["cases.csv", "figures/brats_0003.png", "metrics.json", "report.html"]
    assert [path for path in evaluating["artifacts"] if not is_config(path)] == report
    assert all(map(is_config, inference["artifacts"]))
    for run in (training, evaluating, inference):
        assert sum(map(is_config, run["artifacts"])) == 1
    (stored,) = (folder / "eval" / "mlruns").rglob("figures/brats_0003.png")
    assert stored.read_bytes() == (folder / "eval" / "figures" / "brats_0003.png").read_bytes()


def is_config(path):
    return re.fullmatch(r"config_\d{8}_\d{6}\.json", path) is not None


@pytest.mark.slow
def test_pretraining_is_tracked_too_and_a_run_that_fails_says_so(
    tracked, read_runs, tmp_path, tasks
):
    """In MONAI's default store, mlruns.db in output_dir."""
    data = PRETRAINING | {"dataset_dir": tasks["brats"], "ckpt_dir": tmp_path / "models"}
    data["output_dir"] = tmp_path / "eval"
    train = TRAINING | {"epochs": 2}
    done = tracked("mae_pretrain", "training", tmp_path, **data, **train, learning_rate=1e30)
    assert "error: the loss is" in done.stderr
    for run_id, settings in (("training", train), ("evaluating", {}), ("run", {})):
        finish(tracked("mae_pretrain", run_id, tmp_path, **data, **settings))
    failed, training, evaluating, inference = read_runs(f"sqlite:///{tmp_path}/eval/mlruns.db")
    assert (failed["status"], failed["params"]["learning_rate"]) == ("FAILED", "1e+30")
    assert {run["status"] for run in (training, evaluating, inference)} == {"FINISHED"}
    assert training["params"]["masking_ratio"] == "0.75"
    assert [step for step, _ in training["metrics"]["val_explained"]] == [1, 2]
    assert "val_loss" in evaluating["metrics"]
    assert "val_loss" in inference["metrics"]
    assert "reconstruction/epoch_0002.png" in training["artifacts"]
    assert len([p for p in inference["artifacts"] if p.startswith("figures/")]) == 5 * 4


def test_without_mlflow_the_run_ends_with_one_sentence(root, tmp_path):
    """Before any data is looked for."""
    hidden = (
        "import runpy, sys; sys.modules['mlflow'] = None; "
        "runpy.run_module('monai.bundle', run_name='__main__')"
    )
    config = root / "bundles" / "brats_lora32" / "configs" / "train.json"
    command = [
        sys.executable, "-c", hidden, "run", "--config_file", str(config), "--tracking", "mlflow",
        "--output_dir", str(tmp_path / "eval"), "--dataset_dir", "/nowhere",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, cwd=root)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith("error: --tracking: found no package mlflow")
    assert "Traceback" not in done.stderr


def test_untracked_run_leaves_no_store_and_no_config(run_workflow, tmp_path, tasks):
    settings = PRETRAINING | TRAINING | {"epochs": 1}
    run_workflow("mae_pretrain", "train", dataset_dir=str(tasks["prostatex"]), **settings)
    left = {path.name for path in (tmp_path / "train").glob("[!.]*")}
    assert {"figures", "checked_cases.json"} <= left
    assert not [name for name in left if name.startswith(("mlruns", "config_"))]
