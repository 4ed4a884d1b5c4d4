"""What a study runs: rows (bundles and reference networks), each with every seed and fold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_ext.bundles.generator import DATASETS, REGIMES, bundle_facts, render_bundle, write_bundles
from lora_ext.data.task import read_task
from lora_ext.networks.regimes import get_regime
from lora_ext.study.reference import REFERENCES
from lora_ext.weights.encoder import read_encoder
from lora_ext.weights.remote import is_remote

BUNDLES = tuple(f"{dataset}_{regime}" for dataset in DATASETS for regime in REGIMES)
# Keys of train.json that are no settings of a study: it sets them itself (seeds and folds are
# lists of its own), or a row is named after them.
NOT_SETTINGS = {
    "dataset_dir", "seed", "fold", "resume", "rank_zero", "regime", "lora_rank",
    "save_execute_config",
}  # fmt: skip
# Task folders by data set, in the order of preference.
TASK_FOLDERS = {
    "brats": ("Task01_BrainTumour", "phantom_brats", "brats"),
    "prostatex": ("Task05_Prostate", "phantom_prostatex", "prostatex"),
}
NO_ENCODER = "none"  # --pretrained none: random weights on purpose
PATTERN = re.compile(r"(?:[^{}]|\{(?:dataset|seed|fold)\})*")  # what --pretrained may be


@dataclass(frozen=True)
class Run:
    """One training and evaluation."""

    row: str  # in the tables, such as brats_lora32 or brats_segresnet
    dataset: str
    regime: str  # the row's name without the data set
    reference: bool  # whether a reference network takes the place of the bundle's
    bundle: str
    seed: int  # of weights, order and crops; the folds follow the setting split_seed
    fold: int  # the one that validates
    dataset_dir: str
    knobs: dict[str, Any] = field(default_factory=dict)  # the settings that were asked for

    @property
    def folder(self) -> str:
        """The run's folder, relative to the study's."""
        return f"runs/{self.row}/seed{self.seed}_fold{self.fold}"

    @property
    def title(self) -> str:
        """The run in a few words, for the console."""
        return f"{self.row} seed {self.seed} fold {self.fold}"


def plan_runs(
    data_dir: str, bundles: Any = None, seeds: Any = 0, folds: Any = 0, reference: Any = None,
    knobs: Mapping[str, Any] | None = None, variant: Mapping[str, Any] | None = None,
) -> list[Run]:  # fmt: skip
    """Expand what `run_study` was asked for into runs, seed by seed, so that tables fill evenly.

    `variant` is what an ablation sets for all runs, and no study may.
    """
    given = check_settings(knobs or {})
    names = _known("bundle", words(bundles), BUNDLES)
    references = _known("reference network", words(reference), REFERENCES)
    tasks = find_tasks(Path(data_dir), sorted({_dataset(name) for name in names}))
    names = names or [name for name in BUNDLES if _dataset(name) in tasks]
    rows = [(name, name) for name in names]
    first = {_dataset(name): name for name in reversed(names)}  # one bundle per data set
    rows += [(f"{d}_{net}", first[d]) for d in DATASETS if d in first for net in references]
    count = given.get("num_folds", bundle_facts()[BUNDLES[0]]["num_folds"])
    if (last := max(integers("folds", folds))) >= count:
        raise ValueError(f"--folds: expected 0 to {count - 1}, got {last}")
    draws = [(seed, fold) for seed in integers("seeds", seeds) for fold in integers("folds", folds)]
    sizes = _encoder_sizes(given.get("pretrained"), _dataset(rows[0][0]), *draws[0])
    settings = sizes | given | dict(variant or {})
    return [
        _run(row, bundle, seed, fold, str(tasks[_dataset(row)]), settings)
        for seed, fold in draws
        for row, bundle in rows
    ]


def known_settings() -> list[str]:
    """Return the settings of ``train.json`` that a study passes on, in its order."""
    config = json.loads(render_bundle(bundle_facts()[BUNDLES[0]])["configs/train.json"])
    wiring = re.compile('"[$@]|"_target_"')  # refers to code or to other values
    looked_up = {"device", *config["encoder_sizes"]["default"]}  # settings for all that
    return [
        key
        for key, value in config.items()
        if key in looked_up or not (key in NOT_SETTINGS or wiring.search(json.dumps(value)))
    ]


def check_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON holds them; ValueError for one that a study cannot pass on."""
    known = known_settings()
    for name in settings:
        if name not in known:
            raise ValueError(
                f"unknown setting --{name}; expected one of {', '.join(known)}, or the study's "
                "own --bundles, --seeds, --folds and --reference"
            )
    return json.loads(json.dumps(dict(settings)))


def words(value: Any) -> list[str]:
    """Return names as they come from the command line: one, several, or with commas between."""
    values = value if isinstance(value, (list, tuple)) else [value]
    found = [w.strip() for v in values if v is not None for w in str(v).split(",")]
    return list(dict.fromkeys(w for w in found if w))


def integers(flag: str, value: Any) -> list[int]:
    """Return whole numbers as they come from the command line, at least one."""
    found = words(value)
    if not found or not all(word.isdecimal() for word in found):
        raise ValueError(f"--{flag}: expected whole numbers such as 0,1,2, got {value!r}")
    return list(dict.fromkeys(int(word) for word in found))


def fill_pretrained(pretrained: Any, dataset: str, seed: int, fold: int) -> str:
    """Fill a run's data set, seed and fold into ``--pretrained``; ValueError for other braces.

    A fold may need an encoder of its own: one that has seen its validation cases flatters its Dice.
    """
    text = str(pretrained)
    if not PATTERN.fullmatch(text):
        raise ValueError(
            f"--pretrained: expected only {{dataset}}, {{seed}} or {{fold}} in braces, got {text!r}"
        )
    filled = text.format(dataset=dataset, seed=seed, fold=fold)
    return NO_ENCODER if filled.lower() == NO_ENCODER else filled


def check_pretrained(runs: Sequence[Run]) -> None:
    """Refuse to begin if an encoder that was asked for is not there."""
    for run in runs:
        path = run.knobs.get("pretrained")
        if path not in (None, NO_ENCODER) and not is_remote(path) and not Path(path).is_file():
            raise ValueError(
                f"--pretrained: expected an encoder for {run.title}, found no file {path}; pass "
                "another --pretrained FILE, or none to start from random weights"
            )


def _encoder_sizes(pretrained: Any, dataset: str, seed: int, fold: int) -> dict[str, Any]:
    """Look up how an encoder differs from the bundles' default sizes.

    Runs that start from it find out themselves; `baseline` and the reference networks are compared
    with them, and so need the same sizes.
    """
    path = NO_ENCODER if pretrained is None else fill_pretrained(pretrained, dataset, seed, fold)
    if path == NO_ENCODER or not (is_remote(path) or Path(path).is_file()):
        return {}  # `check_pretrained` tells of a file that is not there
    file, default = read_encoder(path), bundle_facts()[BUNDLES[0]]
    return {k: v for k, v in file.arguments.items() if v != default[k]}


def find_tasks(data_dir: Path, wanted: Sequence[str]) -> dict[str, Path]:
    """Find the task folder of each data set that is wanted, or of whichever are there.

    A folder is one task folder (``dataset.json`` in it) or holds some, named as `TASK_FOLDERS`.
    """
    if not data_dir.is_dir():
        raise ValueError(f"--data_dir: expected an existing folder, found none at {data_dir}")
    if (data_dir / "dataset.json").is_file():
        return {_dataset_of(data_dir, wanted): data_dir}
    tasks = {
        dataset: data_dir / name
        for dataset in DATASETS
        for name in reversed(TASK_FOLDERS[dataset])
        if (data_dir / name / "dataset.json").is_file()
    }
    missing = [dataset for dataset in wanted or DATASETS if dataset not in tasks]
    if missing and (wanted or not tasks):
        names = ", ".join(name for dataset in missing for name in TASK_FOLDERS[dataset])
        raise ValueError(
            f"--data_dir: found no dataset.json in {data_dir}, nor in any of {names} below it; "
            f"give a task folder or a folder that holds one for {' and '.join(missing)}"
        )
    return tasks


def find_bundles(names: Sequence[str], out: Path) -> Path:
    """Return ``bundles/`` of the current folder if it has all names, else write it below `out`."""
    here = Path("bundles")
    if all((here / name / "configs" / "train.json").is_file() for name in names):
        return here
    write_bundles(out / "bundles")
    return out / "bundles"


def _dataset(bundle: str) -> str:
    return bundle.partition("_")[0]


def _run(
    row: str, bundle: str, seed: int, fold: int, folder: str, settings: Mapping[str, Any]
) -> Run:
    dataset, _, regime = row.partition("_")
    reference, own = regime in REFERENCES, dict(settings)
    pretrained = own.pop("pretrained", None)
    starts_pretrained = get_regime(bundle_facts()[bundle]["regime"]).pretrained and not reference
    if pretrained is not None and starts_pretrained:  # others would refuse it
        own["pretrained"] = fill_pretrained(pretrained, dataset, seed, fold)
    return Run(row, dataset, regime, reference, bundle, seed, fold, folder, own)


def _known(what: str, names: list[str], known: Iterable[str]) -> list[str]:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; expected one of {', '.join(known)}")
    return names


def _dataset_of(task: Path, wanted: Sequence[str]) -> str:
    """Return the data set of one task folder: the one wanted, else by its channels' names."""
    if len(wanted) > 1:
        raise ValueError(
            f"--data_dir: expected a folder that holds a task folder for each of "
            f"{' and '.join(wanted)}, got the one task folder {task}"
        )
    channels = set() if wanted else {n.lower() for n in read_task(task, on_disk=()).channels}
    known = {d: bundle_facts()[f"{d}_baseline"]["modalities"] for d in DATASETS}
    fitting = wanted or [d for d in known if {n.lower() for n in known[d]} & channels]
    if len(fitting) != 1:
        shown = "; ".join(f"{d}: {', '.join(names)}" for d, names in known.items())
        raise ValueError(
            f"--data_dir: the channels {', '.join(sorted(channels))} of {task} do not tell its "
            f"data set; expected those of one of {shown}; name the bundles with --bundles"
        )
    return fitting[0]
