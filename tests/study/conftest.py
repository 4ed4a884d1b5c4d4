"""A study that never ran: results as `python -m lora_ext study` writes them, with known effects."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from lora_ext.evaluation import case_metrics, summary
from lora_ext.evaluation.tables import without_nan
from lora_ext.study import run as run_module

REGIONS = {"brats": {"TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}, "prostatex": {"PZ": [1], "TZ": [2]}}
CHANNELS = {"brats": 4, "prostatex": 2}
FUSION_DECODER = {"brats": 54_577_347, "prostatex": 49_855_106}
ENCODER = 88_322_304
ENCODER_FILE = "encoder.safetensors (sha256 0123456789ab)"
REGIMES = ("baseline", "finetune", "frozen", "lora16", "lora32", "lora64")
# Of 200 voxels, how many are hit: what sets a regime's level.
HITS = dict(zip((*REGIMES, "segresnet"), (160, 176, 156, 166, 174, 170, 168), strict=True))


def measured(dataset, regime, seed, number):
    """One case, measured by the project's own metrics: 200 true voxels per region."""
    names = list(REGIONS[dataset])
    generator = torch.Generator().manual_seed(1000 * seed + 10 * number + len(regime))
    truth = torch.zeros(len(names), 10, 10, 4, dtype=torch.bool)
    prediction = torch.zeros_like(truth)
    truth.view(len(names), -1)[:, :200] = True
    for index in range(len(names)):
        jitter = int(torch.randint(-6, 7, (1,), generator=generator))
        hits = HITS.get(regime, 150) + jitter - 12 * index - 4 * number
        prediction.view(len(names), -1)[index, 200 - hits : 210] = True
    return case_metrics(prediction, truth, (1, 1, 1), names, case=f"{dataset.upper()}_{number:03d}")


def parameters(dataset, regime):
    if regime == "segresnet":
        return {"total": 4_700_000, "trainable": 4_700_000}
    rank = int(regime[4:]) if regime.startswith("lora") else 0
    adapters, rest = CHANNELS[dataset] * 64512 * rank, FUSION_DECODER[dataset]
    total = ENCODER + rest + adapters
    encoder_trains = regime in ("baseline", "finetune")
    return {
        "total": total,
        "trainable": total if encoder_trains else total - ENCODER,
        "encoder": ENCODER,
        "fusion_decoder": rest,
        "adapters": adapters,
    }


def curve(regime, seed, epochs=20):
    """A loss that falls and a Dice that is measured every fifth epoch."""
    level = HITS.get(regime, 150) / 200
    return [
        {
            "epoch": epoch,
            "loss": 1.8 * 0.88**epoch + (1 - level) + 0.02 * ((epoch * 7 + seed * 3) % 5),
            "learning_rate": 0.005,
            "val_pooled_dice": None if epoch % 5 else level * (1 - 0.8**epoch) + 0.01 * seed,
        }
        for epoch in range(1, epochs + 1)
    ]


def one_run(dataset, regime, seed=0, fold=0, cases=5):
    found = [measured(dataset, regime, seed, number) for number in range(cases)]
    row, bundle = f"{dataset}_{regime}", f"bundles/{dataset}_{regime}"
    return {
        "row": row,
        "dataset": dataset,
        "regime": regime,
        "reference": regime == "segresnet",
        "bundle": f"bundles/{dataset}_lora32" if regime == "segresnet" else bundle,
        "seed": seed,
        "fold": fold,
        "knobs": {"epochs": 20, "dataset_dir": f"data/{dataset}"},
        "encoder": "random" if regime in ("baseline", "segresnet") else ENCODER_FILE,
        "commands": {"training": ["python"], "evaluating": ["python"]},
        "status": "done",
        "error": None,
        "seconds": {"training": 100.0 + seed, "evaluating": 9.5},
        "peak_memory_mb": 12345.6 + seed,
        "parameters": parameters(dataset, regime),
        "regions": REGIONS[dataset],
        "summary": without_nan(summary(found)),
        "cases": without_nan([case.to_dict() for case in found]),
        "curve": curve(regime, seed),
        "folder": f"runs/{row}/seed{seed}_fold{fold}",
    }


@pytest.fixture
def make_run():
    """A function that makes one finished run: data set, regime, seed, fold, number of cases."""
    return one_run


@pytest.fixture
def make_results():
    """A function that makes results of all regimes, two seeds and five cases, or of less."""

    def make(
        datasets=("brats", "prostatex"), regimes=(*REGIMES, "segresnet"), seeds=(0, 1), cases=5
    ):
        return {
            "command": "python -m lora_ext study --data_dir data --out study --seeds 0,1",
            "versions": {"lora_ext": "0.1.0", "torch": "2.13.0", "monai": "1.6.1"},
            "device": "cpu (2 cores)",
            "created": "2026-01-02T03:04:05+00:00",
            "runs": [
                one_run(dataset, regime, seed, 0, cases)
                for dataset in datasets
                for regime in regimes
                for seed in seeds
            ],
        }

    return make


@pytest.fixture
def fail():
    """A function that turns a run into a failed one, as the runner records it."""

    def turn(run, error="RuntimeError: out of memory | at step 3"):
        return {
            **run,
            "status": "failed",
            "error": error,
            "peak_memory_mb": None,
            "parameters": None,
            "summary": None,
            "cases": [],
            "curve": [],
        }

    return turn


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A workplace with a data set and a stand-in for MONAI; tells which processes were run."""
    (tmp_path / "data" / "brats").mkdir(parents=True)
    (tmp_path / "data" / "brats" / "dataset.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    stand_in = str(Path(__file__).with_name("fake_bundle.py"))
    monkeypatch.setattr(run_module, "LAUNCHER", (sys.executable, stand_in))
    monkeypatch.setattr(run_module, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    return lambda: [
        json.loads(line) for line in Path("calls").read_text(encoding="utf-8").splitlines()
    ]
