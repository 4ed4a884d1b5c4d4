"""What a user of the server relies on, check by check: what was found, and how long it took."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import torch

from lora_ext.bundles.generator import all_facts, bundle_facts
from lora_ext.data import CasePaths, labels_to_regions, read_task
from lora_ext.data.regions import Regions
from lora_ext.evaluation import PooledDice

if TYPE_CHECKING:
    from labelling.server import Server  # its libraries are in MONAI Label's environment alone

BUNDLE = "brats_lora32"  # the one that is trained
CHANNELS = ("FLAIR", "t1gd")  # its channels, in the order of the datastore's files
HELD_OUT = 4  # cases at the end of the list that are never labelled in the datastore
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
        labels = {case.name: case.label for case in self.held_out}
        pairs = [(path, labels[case.name]) for case, path in self._answers()]
        self.dice.append(pooled_dice(pairs, FACTS[BUNDLE]["regions"]))
        return self.dice[-1]

    def _answers(self) -> Iterator[tuple[CasePaths, Path]]:
        for case in self.held_out:
            yield case, self.server.infer(BUNDLE, case.name).path

    def _model(self) -> str:
        content = (self.models / BUNDLE / "models" / "model.pt").read_bytes()
        return hashlib.sha256(content).hexdigest()


class Report:
    """Rows of checks; one that fails does not keep the next from being tried."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, float]] = []

    def check(self, name: str, run: Callable[[], str]) -> None:
        """Run a check.

        Args:
            name: what is checked.
            run: returns what was found, and raises if that is wrong.
        """
        start = time.perf_counter()
        try:
            verdict, found = "ok", run()
        except Exception as error:
            verdict, found = "FAILED", f"{type(error).__name__}: {error}"
        self.rows.append((verdict, name, found, time.perf_counter() - start))
        print(f"{verdict}: {name}", flush=True)

    def skip(self, name: str, why: str) -> None:
        """Note a check that cannot be made here."""
        self.rows.append(("skipped", name, why, 0.0))

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return sum(verdict == "FAILED" for verdict, *_ in self.rows)

    def __str__(self) -> str:
        """The table."""
        width = max(len(name) for _, name, _, _ in self.rows)
        lines = [
            f"{verdict:<8} {name:<{width}} {seconds:6.1f} s  {found}"
            for verdict, name, found, seconds in self.rows
        ]
        passed = sum(verdict == "ok" for verdict, *_ in self.rows)
        return "\n".join([*lines, f"{passed} passed, {self.failed} failed"])


def require(holds: bool, sentence: str) -> None:
    """Raise ``ValueError`` with `sentence` unless `holds`."""
    if not holds:
        raise ValueError(sentence)


def read(path: Path) -> np.ndarray:
    """Read the voxels (H, W, D) of a label map, as whole numbers."""
    return np.asarray(nib.load(path).dataobj).astype(np.int16)


def check_geometry(path: Path, image: Path, values: Iterable[int]) -> str:
    """Check that a label map has its image's grid and no other values than these."""
    answer, source = nib.load(path), nib.load(image)
    shape = source.shape[:3]
    require(answer.shape == shape, f"shape {answer.shape}, the image's is {shape}")
    offset = np.abs(answer.affine - source.affine).max()
    require(offset < 1e-3, f"affine is off by {offset:.2g}")
    found = set(np.unique(np.asarray(answer.dataobj)).tolist())
    require(found <= set(values), f"values {found}, allowed are {set(values)}")
    return f"{'x'.join(map(str, shape))}, values {sorted(map(int, found))}"


def pooled_dice(pairs: Iterable[tuple[Path, Path]], regions: Regions) -> float:
    """Compute Dice over all regions and cases of (prediction, ground truth)."""
    metric = PooledDice()
    for pair in pairs:
        masks = [labels_to_regions(torch.from_numpy(read(p))[None], regions)[None] for p in pair]
        metric(*masks)
    return metric.aggregate()
