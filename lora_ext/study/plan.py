"""What a study runs: rows (bundles and reference networks), each with every seed and fold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_ext.bundles.generator import DATASETS, REGIMES, bundle_facts, render_bundle
from lora_ext.study.locate import find_tasks
from lora_ext.study.pretrained import fill_pretrained, needs_encoder
from lora_ext.study.reference import REFERENCES

BUNDLES = tuple(f"{dataset}_{regime}" for dataset in DATASETS for regime in REGIMES)
# Keys of train.json that look like knobs and are none in a study: the study sets them (seeds and
# folds are lists of its own), or a row is named after them.
NOT_KNOBS = {
    "dataset_dir", "seed", "fold", "resume", "rank_zero", "regime", "lora_rank",
    "save_execute_config",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training and evaluation.

    Attributes:
        row: name of the row in the tables, such as ``brats_lora32`` or ``brats_segresnet``.
        dataset: ``brats`` or ``prostatex``.
        regime: the row's name without the data set.
        reference: whether a reference network takes the place of the bundle's.
        bundle: the bundle that is run.
        seed: seed of the run and of its split into folds.
        fold: the fold that validates.
        dataset_dir: the task folder.
        knobs: the settings that were asked for, by their names in ``train.json``.
    """

    row: str
    dataset: str
    regime: str
    reference: bool
    bundle: str
    seed: int
    fold: int
    dataset_dir: str
    knobs: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The run's folder, relative to the study's."""
        return f"runs/{self.row}/seed{self.seed}_fold{self.fold}"

    @property
    def title(self) -> str:
        """The run in a few words, for the console."""
        return f"{self.row} seed {self.seed} fold {self.fold}"


def plan_runs(
    data_dir: str,
    bundles: Any = None,
    seeds: Any = 0,
    folds: Any = 0,
    reference: Any = None,
    knobs: Mapping[str, Any] | None = None,
    variant: Mapping[str, Any] | None = None,
) -> list[Run]:
    """Expand a request into runs, seed by seed, so that an unfinished study has whole tables.

    Args:
        data_dir: a task folder or a folder of task folders, see `find_tasks`.
        bundles: names of bundles, by default all whose data set is there.
        seeds: one or more seeds.
        folds: one or more folds.
        reference: names of reference networks; each runs once per data set.
        knobs: other settings of ``train.json``.
        variant: settings of ``train.json`` that an ablation gives all runs, and no study turns.

    Returns:
        The runs, in the order in which they are to be run.

    Raises:
        ValueError: for an unknown bundle, reference or knob, a fold out of range, data that is
            not found, or anything but ``{dataset}``, ``{seed}`` and ``{fold}`` in braces in the
            knob ``pretrained``.
    """
    asked = check_knobs(knobs or {}) | dict(variant or {})
    names = _known("bundle", words(bundles), BUNDLES)
    references = _known("reference network", words(reference), REFERENCES)
    tasks = find_tasks(Path(data_dir), sorted(set(map(_dataset, names))))
    names = names or [name for name in BUNDLES if _dataset(name) in tasks]
    rows = [(name, name) for name in names]
    first = {_dataset(name): name for name in reversed(names)}  # one bundle per data set
    rows += [
        (f"{dataset}_{network}", first[dataset])
        for dataset in DATASETS
        if dataset in first
        for network in references
    ]
    return [
        _run(row, bundle, seed, fold, tasks, asked)
        for seed in integers("seeds", seeds)
        for fold in _folds(folds, asked)
        for row, bundle in rows
    ]


def known_knobs() -> list[str]:
    """The settings of a generated ``train.json`` that a study passes on, in its order."""
    config = json.loads(render_bundle(bundle_facts()[BUNDLES[0]])["configs/train.json"])
    return [
        key
        for key, value in config.items()
        if key == "device" or (key not in NOT_KNOBS and not _is_wiring(value))
    ]


def check_knobs(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Return knobs as JSON holds them.

    Raises:
        ValueError: for a knob that ``train.json`` does not have, or that is not a study's to turn.
    """
    known = known_knobs()
    for name in knobs:
        if name not in known:
            raise ValueError(
                f"unknown knob --{name}; known are {', '.join(known)}, beside the study's own "
                "--bundles, --seeds, --folds and --reference"
            )
    return json.loads(json.dumps(dict(knobs)))


def _dataset(bundle: str) -> str:
    return bundle.partition("_")[0]


def _is_wiring(value: Any) -> bool:
    """Whether a config value refers to code or to other values."""
    text = json.dumps(value)
    return '"$' in text or '"@' in text or '"_target_"' in text


def _run(
    row: str,
    bundle: str,
    seed: int,
    fold: int,
    tasks: Mapping[str, Path],
    knobs: Mapping[str, Any],
) -> Run:
    dataset, _, regime = row.partition("_")
    reference = regime in REFERENCES
    own = dict(knobs)
    pretrained = own.pop("pretrained", None)
    if pretrained is not None and needs_encoder(bundle, reference):  # others would refuse it
        own["pretrained"] = fill_pretrained(pretrained, dataset, seed, fold)
    return Run(row, dataset, regime, reference, bundle, seed, fold, str(tasks[dataset]), own)


def words(value: Any) -> list[str]:
    """Names as they come from the command line: one, several, or with commas between them."""
    values = value if isinstance(value, (list, tuple)) else [value]
    found = [w.strip() for v in values if v is not None for w in str(v).split(",")]
    return list(dict.fromkeys(w for w in found if w))


def _known(what: str, names: list[str], known: Iterable[str]) -> list[str]:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; known are {', '.join(known)}")
    return names


def integers(what: str, value: Any) -> list[int]:
    """Whole numbers as they come from the command line, see `words`.

    Args:
        what: the flag.
        value: what was given for it.

    Raises:
        ValueError: for anything else, and for none.
    """
    found = words(value)
    if not found or not all(word.isdecimal() for word in found):
        raise ValueError(f"{what}: found {value!r}; allowed are whole numbers such as 0,1,2")
    return list(dict.fromkeys(int(word) for word in found))


def _folds(value: Any, knobs: Mapping[str, Any]) -> Sequence[int]:
    folds = integers("folds", value)
    count = knobs.get("num_folds", bundle_facts()[BUNDLES[0]]["num_folds"])
    if max(folds) >= count:
        raise ValueError(f"folds: found {max(folds)}; allowed are 0 to {count - 1}")
    return folds
