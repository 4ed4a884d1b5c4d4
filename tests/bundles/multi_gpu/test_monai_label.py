"""MONAI Label's way onto several GPUs: an exported, changed copy of train.json, then torchrun."""

import os
import re
import subprocess
import sys

import pytest
from monai.bundle import ConfigParser


def train(bundle, task, epochs):
    """What ``monailabel/tasks/train/bundle.py`` (0.8.5) does with a multi-GPU request."""
    configs = bundle / "configs"
    images = sorted((task / "imagesTr").iterdir())
    data = [{"image": str(p), "label": str(task / "labelsTr" / p.name)} for p in images]
    config = ConfigParser()
    config.read_config(str(configs / "train.json"))
    config.config.update({"bundle_root": str(bundle)})
    handlers = config.get("train#handlers", [])
    loader = {"_target_": "CheckpointLoader", "load_path": str(bundle / "models" / "model.pt"),
              "load_dict": {"model": "$@network"}, "strict": False}  # fmt: skip
    handlers.insert(0, loader)
    overrides = {
        "bundle_root": str(bundle),
        "train#trainer#max_epochs": epochs,
        "train#dataset#data": data[:3],
        "device": "cuda:0",  # for all processes alike: the overlay must win
        "train#handlers": handlers,
        "validate#dataset#data": data[3:],
    }
    for key, value in overrides.items():
        config.set(value, key)
    copy = configs / "monailabel_train.json"
    ConfigParser.export_config_file(config.config, str(copy), indent=2)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1"),
        *("--nproc_per_node=2", "-m", "monai.bundle", "run", "run"),
        *("--meta_file", str(configs / "metadata.json")),
        *("--config_file", f"['{copy}','{configs / 'multi_gpu_train.json'}']"),
        *("--logging_file", str(configs / "logging.conf"), "--tracking", "None"),
    ]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_round_on_two_processes_improves_the_model_and_the_next_starts_from_it(
    bundle, model, tasks
):
    before = model.read_bytes()
    first = train(bundle, tasks["prostatex"], epochs=3)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("3 training cases, 2 for validation") == 1
    dice = validated(first.stdout)
    assert list(dice) == [0, 1, 2, 3]
    assert max(dice.values()) > dice[0]
    assert model.read_bytes() != before
    second = train(bundle, tasks["prostatex"], epochs=1)
    assert validated(second.stdout)[0] == pytest.approx(max(dice.values()), abs=1e-4)


def validated(text):
    lines = re.findall(r"epoch (\d+)/\d+: validation pooled_dice (\d\.\d+)", text)
    assert len(lines) == len({epoch for epoch, _ in lines})
    return {int(epoch): float(dice) for epoch, dice in lines}
