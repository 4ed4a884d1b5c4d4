"""Tiny phantom tasks, made once for all tests of the bundles."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

from lora_ext import ChannelLoRAUNETR, save_adapter
from lora_ext.bundles.generator import facts_of, render_bundle
from lora_ext.phantoms import write_phantoms
from lora_ext.weights import save_model

SIZES = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_layers": 4, "num_heads": 2}
SERVED = {
    **SIZES,
    "roi_size": [32, 32, 16],
    "num_workers": 0,
    "sw_overlap": 0.0,
    "batch_size": 1,
    "crops_per_case": 1,
    "cache_rate": 1.0,
    "val_interval": 1,
    "learning_rate": 0.02,
}

CONSOLE = str(Path(__file__).with_name("console.py"))

# In a process of its own: sqlalchemy's warnings about mlflow would be errors in this one.
READER = """
import json, sys, mlflow
client = mlflow.MlflowClient(tracking_uri=sys.argv[1])
experiments = [e for e in client.search_experiments() if e.name != "Default"]
def paths(run, folder=None):
    for item in client.list_artifacts(run, folder):
        yield from paths(run, item.path) if item.is_dir else [item.path]
print(json.dumps([
    {
        "experiment": experiment.name,
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "artifacts": sorted(paths(run.info.run_id)),
        "metrics": {
            key: [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        },
    }
    for experiment in experiments
    for run in client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])
]))
"""


@pytest.fixture(scope="session")
def tasks(tmp_path_factory) -> dict[str, Path]:
    """One phantom task of five labelled cases and one unlabelled case per data set."""
    folder = tmp_path_factory.mktemp("tasks")
    return {
        task: write_phantoms(task, folder / task, cases=5, size=(48, 48, 24), test_cases=1)
        for task in ("brats", "prostatex")
    }


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A `prostatex_lora16` that holds its settings itself, since MONAI Label passes no flags."""
    folder = tmp_path / "app" / "model" / "prostatex_lora16"
    for path, text in render_bundle(facts_of(folder.name, {"test": SERVED})).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def model(bundle) -> Path:
    """A network as `bundle` builds it, its file in the bundle."""
    torch.manual_seed(0)
    network = ChannelLoRAUNETR(
        2, 2, (32, 32, 16), regime="lora", lora_rank=16, modalities=["T2", "ADC"], **SIZES
    )
    save_model(network, bundle / "models" / "model.pt")
    return bundle / "models" / "model.pt"


@pytest.fixture
def run_workflow(root, tmp_path):
    """A function that runs a bundle in this process: name, kind, settings -> the workflow.

    A copy of the bundle is run, so that no run writes into the repository or finds an encoder that
    somebody trained there.
    """
    files = {"train": ["train"], "evaluate": ["train", "evaluate"], "infer": ["inference"]}

    def run(name, kind, before_run=lambda workflow: None, initialize=True, **settings):
        bundle = tmp_path / "bundles" / name
        if not bundle.exists():
            for part in ("configs", "docs"):
                shutil.copytree(root / "bundles" / name / part, bundle / part)
        configs = bundle / "configs"
        again = {"overwrite": not settings.get("resume", False)} if kind == "train" else {}
        workflow = ConfigWorkflow(
            [str(configs / f"{file}.json") for file in files[kind]],
            workflow_type="infer" if kind == "infer" else "train",
            **{
                "ckpt_dir": str(tmp_path / "models"),
                "output_dir": str(tmp_path / kind),
                **again,
                **settings,
            },
        )
        if initialize:
            workflow.initialize()
            assert workflow.check_properties() == []
        before_run(workflow)
        workflow.run()
        workflow.finalize()
        return workflow

    return run


@pytest.fixture(scope="session")
def monai_bundle(pytestconfig, tmp_path_factory):
    """A function that runs ``python -m monai.bundle`` as a user does, from any folder.

    The command is forked off a fresh process that has imported MONAI already, which saves ten
    seconds each time. With ``wait=False`` it is a process of its own, to be sent signals.
    """
    environment = {"PYTHONPATH": str(pytestconfig.rootpath)}
    environment["PYTHONIOENCODING"] = "utf-8"  # torch's ONNX exporter prints more than ASCII
    prepared = multiprocessing.get_context("forkserver")
    prepared.set_forkserver_preload(["monai.bundle", "monai.engines", "monai.handlers", "lora_ext"])
    folder = tmp_path_factory.mktemp("console")

    def run(*arguments, cwd, wait=True):
        words = [*map(str, arguments)]
        if not wait:
            silent = subprocess.DEVNULL
            return subprocess.Popen(
                [sys.executable, "-m", "monai.bundle", *words],
                cwd=cwd, env=os.environ | environment, stdout=silent, stderr=silent,
            )  # fmt: skip
        console = [folder / "stdout", folder / "stderr"]
        given = {"words": words, "cwd": str(cwd), "console": [str(path) for path in console],
                 "environment": os.environ | environment}  # fmt: skip
        child = prepared.Process(target=runpy.run_path, args=(CONSOLE, given))
        child.start()
        child.join()
        out, err = (path.read_text(encoding="utf-8") for path in console)
        return subprocess.CompletedProcess(words, child.exitcode, out, err)

    return run


@pytest.fixture(scope="session")
def read_runs():
    """A function that reads all runs of an MLflow store, the oldest first."""

    def read(store):
        command = [sys.executable, "-W", "ignore", "-c", READER, store]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
        return json.loads(done.stdout)

    return read


@pytest.fixture
def weights(tmp_path, wake_adapters):
    """A function that writes the files of a small trained network; returns their folder."""

    def write(modalities=("FLAIR", "T1w", "t1gd", "T2w"), regions=3, **sizes) -> Path:
        torch.manual_seed(0)
        settings = {"regime": "lora", "lora_rank": 8, **SIZES, **sizes}
        network = ChannelLoRAUNETR(
            len(modalities), regions, (32, 32, 16), modalities=modalities, **settings
        )
        folder = tmp_path / "trained"
        save_model(wake_adapters(network), folder / "model.pt")
        save_adapter(network, folder / "adapter.safetensors")
        for left_by_training in ("last.pt", "last.ckpt"):
            (folder / left_by_training).write_bytes(b"state of an optimizer")
        return folder

    return write
