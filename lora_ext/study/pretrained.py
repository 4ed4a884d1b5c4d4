"""Which pre-trained encoder a study's runs start from, checked before and told afterwards.

`--pretrained` is one file for all runs, or a pattern such as
``pre/{dataset}_seed{seed}_fold{fold}.safetensors``: an encoder that was pre-trained on the
validation cases of a fold would make that fold's Dice too good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from lora_ext.bundles.generator import bundle_facts
from lora_ext.networks.regimes import get_regime
from lora_ext.study.paper import regime_title
from lora_ext.study.statistics import Record, finished

if TYPE_CHECKING:
    from lora_ext.study.plan import Run

NO_ENCODER = "none"  # asked for: start at random all the same
PLACES = ("dataset", "seed", "fold")
SHOWN = 3  # file names in a plot's note


def needs_encoder(bundle: str, reference: bool) -> bool:
    """Whether a row's regime starts from a pre-trained encoder."""
    return not reference and get_regime(bundle_facts()[bundle]["regime"]).pretrained


def fill_pretrained(pretrained: Any, dataset: str, seed: int, fold: int) -> str:
    """Fill a run's data set, seed and fold into ``--pretrained``.

    Args:
        pretrained: a file, a pattern with ``{dataset}``, ``{seed}`` or ``{fold}``, or ``none``.
        dataset: the run's data set.
        seed: its seed.
        fold: its fold.

    Raises:
        ValueError: for anything else in braces.
    """
    text = str(pretrained)
    allowed = " and ".join(f"{{{name}}}" for name in PLACES)
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"pretrained: found {text!r}; allowed in it are {allowed}") from error
    for _, name, form, conversion in parts:
        if name is not None and (name not in PLACES or form or conversion):
            raise ValueError(f"pretrained: found {{{name}}} in {text!r}; allowed are {allowed}")
    filled = text.format(dataset=dataset, seed=seed, fold=fold)
    return NO_ENCODER if filled.lower() == NO_ENCODER else filled


def check_pretrained(runs: Sequence[Run]) -> None:
    """Refuse to begin where a run would have nothing to start from.

    Args:
        runs: the runs that are to be run.

    Raises:
        ValueError: if a run's regime starts from a pre-trained encoder and none is given, or its
            file is missing.
    """
    for run in runs:
        if not needs_encoder(run.bundle, run.reference):
            continue
        path = run.knobs.get("pretrained")
        if path is None:
            raise ValueError(
                f"{run.row} starts from a pre-trained encoder and found no --pretrained; pass "
                "--pretrained FILE, or --pretrained none to start from random weights"
            )
        if path != NO_ENCODER and not Path(path).is_file():
            raise ValueError(
                f"pretrained: found no file {path}, which {run.title} starts from; pass "
                "--pretrained FILE, or --pretrained none to start from random weights"
            )


def encoder_line(results: Mapping[str, Any], dataset: str) -> str:
    """Return the files that a data set's regimes started from, and which started at random.

    Args:
        results: the content of results.json.
        dataset: its name.
    """
    starts = _starts(results, dataset)
    random = starts.pop(NO_ENCODER, [])
    sentences = []
    for regimes in dict.fromkeys(map(tuple, starts.values())):
        files = ", ".join(f"`{file}`" for file, own in starts.items() if tuple(own) == regimes)
        sentences.append(f"Pre-trained encoder of {', '.join(regimes)}: {files}.")
    if random:
        sentences.append(
            f"**No pre-trained encoder (`--pretrained none`): {', '.join(random)} started from "
            "random weights**, so this is no test of the paper's claims about them."
        )
    return " ".join(sentences)


def encoder_note(results: Mapping[str, Any]) -> str:
    """Return the same for all data sets in plain text, short enough for a plot.

    Args:
        results: the content of results.json.
    """
    datasets = dict.fromkeys(run["dataset"] for run in finished(results))
    found = [start for dataset in datasets for start in _starts(results, dataset)]
    names = [Path(start).name for start in dict.fromkeys(found) if start != NO_ENCODER]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    notes = [f"pre-trained encoder: {', '.join(names[:SHOWN])}{more}"] if names else []
    if NO_ENCODER in found:
        random = (name for d in datasets for name in _starts(results, d).get(NO_ENCODER, []))
        notes.append(
            f"no pre-trained encoder (--pretrained none): {', '.join(dict.fromkeys(random))}"
        )
    return "; ".join(notes)


def _starts(results: Mapping[str, Any], dataset: str) -> dict[str, list[str]]:
    """Titles of the regimes that start from an encoder, by its file or `NO_ENCODER`."""
    starts: dict[str, list[str]] = {}
    for run in finished(results):
        if run["dataset"] == dataset and _is_pretrained_regime(run):
            start = (run.get("knobs") or {}).get("pretrained") or NO_ENCODER
            title = regime_title(run["regime"])
            regimes = starts.setdefault(start, [])
            if title not in regimes:
                regimes.append(title)
    return starts


def _is_pretrained_regime(run: Record) -> bool:
    return run["regime"] != "baseline" and not run.get("reference")
