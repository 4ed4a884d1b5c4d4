"""What a user of the server relies on, check by check."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from labelling.folders import BUNDLE, HELD_OUT
from labelling.label_maps import check_geometry, pooled_dice, read
from labelling.report import Report, require
from labelling.server import Server
from lora_ext.bundles.generator import all_facts, bundle_facts
from lora_ext.data import CasePaths, read_task

FACTS = bundle_facts()
LABELS = {
    "brats": {"edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3},
    "prostatex": {"pz": 1, "tz": 2},
}
ROUND = {"max_epochs": 24, "val_split": 0.25}
LEAST_BEFORE, LEAST_AFTER, LEAST_GAIN = 0.2, 0.5, 0.1


class Checks:
    """The checks, and what they share.

    Args:
        server: the running server.
        work: the folder that ``ci/label_check.sh`` filled.
        patient: a real patient's two-channel image, if there is one.
    """

    def __init__(self, server: Server, work: Path, patient: Path | None) -> None:
        self.server = server
        self.work = work
        self.patient = patient
        self.models = work / "app" / "monaibundle" / "model"
        self.cases = read_task(work / "clinic").training
        self.held_out = self.cases[-HELD_OUT:]
        self.dice: list[float] = []

    def run(self, report: Report) -> None:
        """Run them all, in order."""
        report.check("the bundles are listed with their labels", self.listed)
        report.check("a phantom's label map has its grid and labels", self.phantom)
        report.check("it is the one of the bundle's own inference", self.same_as_bundle)
        report.check("Dice of held-out phantoms before training", self.before)
        report.check("unlabelled images are segmented into the datastore", self.unlabelled)
        real = "a real patient, uploaded, gets a label map of its grid"
        if self.patient is None:
            report.skip(real, "no patients found; set LORA_EXT_REAL_DATA")
        else:
            report.check(real, self.real_patient)
        report.check("a round of training on submitted labels ends well", self.first_round)
        report.check("Dice of held-out phantoms after training", self.after)
        report.check("a round with mlflow as tracking is recorded", self.tracked_round)
        report.check("and leaves the model as it was or better", self.no_worse)

    def listed(self) -> str:
        """All bundles, with the names and values of the label map."""
        info = self.server.info()
        models, trainers = info["models"], info["trainers"]
        for name, facts in FACTS.items():
            require(name in models and name in trainers, f"{name} is missing in {sorted(models)}")
            found, wanted = models[name]["labels"], LABELS[facts["dataset"]]
            require(found == wanted, f"{name} has the labels {found}, not {wanted}")
            require(models[name]["type"] == "segmentation", f"{name} is {models[name]['type']}")
            require(models[name]["dimension"] == 3, f"{name} has {models[name]['dimension']} axes")
        others = sorted(models.keys() - FACTS.keys())
        require(set(models) <= set(all_facts()), f"unknown models {others}")
        return f"{len(FACTS)} segmentation bundles; beside them {', '.join(others) or 'none'}"

    def phantom(self) -> str:
        """One held-out phantom."""
        case = self.held_out[0]
        answer = self.server.infer(BUNDLE, case.name)
        require(answer.label_names == LABELS["brats"], f"label names {answer.label_names}")
        image = self.work / "studies" / f"{case.name}.nii.gz"
        return check_geometry(answer.path, image, {0, *answer.label_names.values()})

    def same_as_bundle(self) -> str:
        """The server's pipeline does what ``inference.json`` does."""
        for case, answer in self._answers():
            own = read(self.work / "own_inference" / f"{case.name}.nii.gz")
            different = int(np.count_nonzero(own != read(answer)))
            require(different == 0, f"{case.name}: {different} voxels differ")
        return f"{len(self.held_out)} label maps, voxel by voxel"

    def before(self) -> str:
        """The model as it was packaged."""
        dice = self._held_out_dice()
        require(dice > LEAST_BEFORE, f"pooled_dice {dice:.3f}, at least {LEAST_BEFORE} is expected")
        return f"pooled_dice {dice:.3f}"

    def unlabelled(self) -> str:
        """Batch inference leaves labels of the tag ``original``."""
        self.server.segment_unlabelled(BUNDLE, 2)
        made = sorted((self.work / "studies" / "labels" / "original").glob("*.nii.gz"))
        require(len(made) == 2, f"found {[path.name for path in made]}, 2 are expected")
        for path in made:
            image = self.work / "studies" / path.name
            check_geometry(path, image, {0, *LABELS["brats"].values()})
        return f"{len(made)} label maps in labels/original"

    def real_patient(self) -> str:
        """Geometry and labels; a model that saw phantoms alone segments no patient."""
        assert self.patient is not None
        name = self.patient.name.removesuffix(".nii.gz")
        self.server.add_image(name, self.patient)
        answer = self.server.infer(BUNDLE, name)
        return check_geometry(answer.path, self.patient, {0, *answer.label_names.values()})

    def first_round(self) -> str:
        """Labels go in through the API; the model's file changes."""
        for case in self.cases[:-HELD_OUT]:
            assert case.label is not None
            self.server.add_label(case.name, case.label)
        before = self._model()
        self.server.train(BUNDLE, **ROUND)
        require(self._model() != before, "models/model.pt is unchanged")
        kept = sorted(p.name for p in (self.models / BUNDLE / "models").glob("*.pt"))
        require(kept == ["model.pt"], f"the server would offer {kept}")
        return f"{len(self.cases) - HELD_OUT} labelled images, {ROUND['max_epochs']} epochs"

    def after(self) -> str:
        """The server takes the new model by itself."""
        dice = self._held_out_dice()
        gain = dice - self.dice[0]
        wanted = f"at least {LEAST_AFTER} and {LEAST_GAIN} more than before are expected"
        require(dice > LEAST_AFTER and gain > LEAST_GAIN, f"pooled_dice {dice:.3f}; {wanted}")
        return f"pooled_dice {dice:.3f} (before {self.dice[0]:.3f})"

    def tracked_round(self) -> str:
        """Two epochs, recorded in a local database."""
        from mlflow import MlflowClient

        self.server.train(BUNDLE, **{**ROUND, "max_epochs": 2, "tracking": "mlflow"})
        database = self.models / BUNDLE / "eval" / "mlruns.db"
        require(database.is_file(), f"{database} is missing")
        client = MlflowClient(f"sqlite:///{database}")
        experiment = client.get_experiment_by_name(BUNDLE)
        require(experiment is not None, f"no experiment {BUNDLE} in {database.name}")
        runs = client.search_runs([experiment.experiment_id])
        require(len(runs) == 1, f"{len(runs)} runs, 1 is expected")
        metrics = sorted(runs[0].data.metrics)
        require("val_pooled_dice" in metrics, f"metrics {metrics}")
        return f"1 run, metrics {', '.join(metrics)}"

    def no_worse(self) -> str:
        """Two epochs at a high learning rate would spoil the model, were it not kept."""
        dice = self._held_out_dice()
        require(dice > self.dice[1] - 0.05, f"pooled_dice {dice:.3f}, was {self.dice[1]:.3f}")
        return f"pooled_dice {dice:.3f} (before {self.dice[1]:.3f})"

    def _held_out_dice(self) -> float:
        truth = {case.name: case.label for case in self.held_out}
        pairs = [(path, truth[case.name]) for case, path in self._answers()]
        self.dice.append(pooled_dice(pairs, FACTS[BUNDLE]["regions"]))
        return self.dice[-1]

    def _answers(self) -> Iterator[tuple[CasePaths, Path]]:
        for case in self.held_out:
            yield case, self.server.infer(BUNDLE, case.name).path

    def _model(self) -> str:
        content = (self.models / BUNDLE / "models" / "model.pt").read_bytes()
        return hashlib.sha256(content).hexdigest()
