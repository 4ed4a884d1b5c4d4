"""A bundle for other data: planned from its cases, written from the source of all bundles."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lora_ext.bundles.allowed import is_name
from lora_ext.bundles.generator import PLAN, REGIMES, facts_of, lay_out, render_bundle
from lora_ext.bundles.plan import FOLDS, Plan, make_plan
from lora_ext.bundles.settings import NAMED, SEGMENTATION, check_values, settings_of
from lora_ext.data import Task, channel_kinds, fold_cases, read_task
from lora_ext.data.regions import own_labels
from lora_ext.data.survey import survey_cases
from lora_ext.files import whole_file
from lora_ext.images.reader import open_image

PLAN_TEXT = "docs/plan.md"
MOST_CHANNELS = 8
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # it stands in the configs' expressions
PLACES = {"bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "device", "regime"}
# What a data set says of itself, by our name for it.
STATED = {
    "name": ("name",), "description": ("description",), "reference": ("reference",),
    "licence": ("licence", "license"),
}  # fmt: skip


def new_bundle(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    regime: str = "lora32",
    *,
    overwrite: bool = False,
    labels: Mapping[Any, str] | None = None,
    **settings: Any,
) -> Plan:
    """Plan a bundle for a data set, and write it.

    Every file of every labelled case is read twice, to check it and to measure it.

    Args:
        data: the data set's folder.
        out: the bundle's folder, whose name becomes the bundle's.
        regime: `REGIMES` lists them.
        overwrite: write into a folder that is there; its models and reports stay.
        labels: name by label value, in place of the data set's own.
        **settings: settings of the bundle that are not to be planned, such as ``spacing``.

    Returns:
        The plan, which is also in the bundle's ``docs/plan.md``.

    Raises:
        ValueError: bad data, an unknown regime or setting, a name that may not stand in a config,
            or a folder that is there.
    """
    folder = Path(os.path.abspath(Path(out).expanduser()))
    given = json.loads(json.dumps(settings))  # a tuple from the command line is a list
    _check_given(folder, regime, given, overwrite)
    task = read_task(data, on_disk=("training",))
    named = dict(task.labels) or _found_labels(task)
    if labels is not None:
        named = {0: "background"} | {int(value): str(name) for value, name in labels.items()}
    plan = _plan(task, data, named, given)
    files = _files(folder.name, regime, _facts(task, plan, named), plan)
    for path, text in sorted(files.items(), key=lambda file: file[0] == "configs/metadata.json"):
        with whole_file(folder / path) as draft:  # the metadata last: they make it a bundle
            draft.write_text(text, encoding="utf-8")
    return plan


def plan_table(plan: Plan) -> str:
    """Lay a plan out as a table in Markdown."""
    rows = [
        f"| `{name}` | `{json.dumps(decision.value, ensure_ascii=False)}` | {decision.reason} |"
        for name, decision in plan.items()
    ]
    return "\n".join(["| setting | value | why |", "|---|---|---|", *rows])


def _check_given(folder: Path, regime: str, given: dict[str, Any], overwrite: bool) -> None:
    if regime not in REGIMES:
        raise ValueError(f"--regime: expected one of {', '.join(REGIMES)}; got {regime!r}")
    if not NAME.fullmatch(folder.name):
        raise ValueError(
            f"--out: expected a folder named with letters, digits, '_', '-' and '.', which becomes "
            f"the bundle's name; got {folder.name!r}"
        )
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder}: expected a new folder, found one that is there; choose another --out, or "
            "pass --overwrite to write its files anew (models and reports stay)"
        )
    known = {setting.name for setting in settings_of(SEGMENTATION)} - PLACES
    for name in given.keys() - known:
        raise ValueError(
            f"--{name}: expected a setting of a segmentation bundle that may be planned; "
            "python -m lora_ext settings lists them"
        )
    check_values(given)
    _check_no_fact(str(given.get("pretrained") or ""), "--pretrained")


def _plan(
    task: Task, data: str | os.PathLike[str], labels: dict[int, str], given: dict[str, Any]
) -> Plan:
    """Check the names, check and read the cases, and plan."""
    modalities = given.get("modalities") or list(task.channels)
    regions = given.get("regions") or _regions(task, labels)
    _check_names(task, "channel", modalities, "modalities")
    _check_names(task, "label", list(regions), "regions")
    own_labels(regions)
    if len(modalities) > MOST_CHANNELS:
        raise ValueError(
            f"{task.root}: expected up to {MOST_CHANNELS} channels, got {len(modalities)} "
            f"({', '.join(modalities)}); choose some with --modalities"
        )
    kinds = channel_kinds(modalities, given.get("intensity", "auto"))
    folds = max(2, min(FOLDS, len(task.training)))
    sides = fold_cases(data, modalities, regions, fold=0, num_folds=folds, split_seed=0)
    items = sorted(sides["training"] + sides["validation"], key=lambda item: item["case"])
    return make_plan(survey_cases(items, kinds), kinds, regions, given)


def _found_labels(task: Task) -> dict[int, str]:
    """The values in the label maps, of a data set that names none."""
    paths = [str(case.label) for case in task.training if case.label is not None]
    found = {int(v) for path in paths for v in np.unique(open_image(path).read()) if v == int(v)}
    return {value: f"label {value}" if value else "background" for value in sorted(found | {0})}


def _regions(task: Task, labels: Mapping[int, str]) -> dict[str, list[int]]:
    """The regions that the data set defines, else a region for each label."""
    defined = dict(task.regions)
    own = {name: [value] for value, name in sorted(labels.items()) if value != 0}
    regions = defined or own
    if not regions or len(own) < len([value for value in labels if value != 0]):
        raise ValueError(
            f"{task.root}: expected labels with a name each, got {dict(labels)}; pass --regions "
            "\"{'tumour': [1]}\" and --labels \"{'1': 'tumour'}\""
        )
    return regions


def _check_names(task: Task, what: str, names: list[str], flag: str) -> None:
    """Refuse names that a config would take for a reference or an expression."""
    for name in names:
        if not is_name(name):
            raise ValueError(
                f"{task.root}: expected {what} names of letters, digits, spaces and '-', got "
                f"{name!r}; change it in the data set's list"
                + (", or pass --regions with other names" if flag == "regions" else "")
            )


def _check_no_fact(text: str, where: str) -> None:
    if "${" in text or text[:1] in ("$", "@", "%"):
        raise ValueError(
            f"{where}: expected a path without '${{', and not one that begins with '$', '@' or "
            f"'%', which mean something in a config; got {text!r}"
        )


def _facts(task: Task, plan: Plan, labels: Mapping[int, str]) -> dict[str, Any]:
    """The layer of a bundle's facts: the plan, and what is said of the data."""
    stated = _stated(task)
    settings = {name: decision.value for name, decision in plan.items()}
    regions = settings["regions"]
    names = {value: _plain(name) or f"label {value}" for value, name in labels.items()}
    names |= {v: name for name, group in regions.items() for v in group if v not in names}
    listed = ", ".join(f"{value} {name}" for value, name in sorted(names.items()))
    source = "; ".join(filter(None, (stated["name"], stated["reference"])))
    _check_no_fact(str(task.root), str(task.root))
    check_values({k: v for k, v in settings.items() if k in NAMED})
    return {
        **settings,
        "dataset": "own",
        "dataset_dir": str(task.source),
        "labels": {str(value): name for value, name in sorted(names.items())},
        "dataset_title": f"{', '.join(regions)} in {', '.join(settings['modalities'])}",
        "dataset_text": f"{len(task.training)} labelled cases"
        + (f": {source}" if source else "")
        + f". Labels are {listed}. Settings were planned from the data: `{PLAN_TEXT}` says why.",
        "without_data": "`--dataset_dir` defaults to the data set that the bundle was made for.",
        "data_source": f"The data set {source}" if source else "A data set of the user's own",
        "data_license": _licence(stated, source),
        "image_classes": "${modality_text} at ${spacing} mm, ${normalization_text}",
        "label_classes": f"label map: {listed}",
        "pred_classes": "${num_regions} channels of logits, one per region: ${region_text}; each "
        "has its own sigmoid",
        "neighbours": "../",
        "prefix": "",
        "origin": "Made by `python -m lora_ext new_bundle` from the source of `lora_ext`'s own "
        f"bundles; the plan and its reasons are in `{PLAN_TEXT}`.",
        "where": "From this folder, or from any other with its full path before `configs/`:",
    }


def _stated(task: Task) -> dict[str, str]:
    """What the data set says of itself, as plain text."""
    content: Any = {}
    if task.source.is_file():
        content = json.loads(task.source.read_text(encoding="utf-8-sig"))
    found = content if isinstance(content, dict) else {}
    return {
        ours: next((_plain(found[key]) for key in keys if found.get(key)), "")
        for ours, keys in STATED.items()
    }


def _plain(text: object) -> str:
    """Keep what no config, no template and no Markdown takes for more than text."""
    words = re.sub(r"[^\w\s.,;:()/+&'-]", " ", str(text)).split()
    return " ".join(words).lstrip("+-_")[:400]


def _licence(stated: Mapping[str, str], source: str) -> str:
    what = f"the data set {source}" if source else "a data set of the user's own"
    terms = stated["licence"]
    said = f"which states its licence as: {terms}" if terms else "which states no licence"
    return (
        f"The bundle holds no data. It was made for {what},\n{said}.\nThe terms of the data apply "
        "to weights that are trained on it.\n"
    )


def _files(name: str, regime: str, facts: dict[str, Any], plan: Plan) -> dict[str, str]:
    source = {"regime": regime, "facts": facts}
    files = render_bundle(facts_of(name, plan=source))
    return files | {PLAN: lay_out(source) + "\n", PLAN_TEXT: _plan_text(name, facts, plan)}


def _plan_text(name: str, facts: Mapping[str, Any], plan: Plan) -> str:
    shared = ("intensity", "ct_window", "pet_window", "spacing", "roi_size")
    flags = " ".join(
        f'--{key} "{json.dumps(facts[key])}"'.replace('""', '"')
        if not isinstance(facts[key], dict)
        else f"--{key} '{json.dumps(facts[key])}'"
        for key in shared
    )
    return f"""# How {name} was planned

From {facts["dataset_text"].split(". Labels")[0]}. A flag of `new_bundle`, or of a training, takes \
the place of a planned value.

{plan_table(plan)}

All other settings are those of every bundle (`docs/README.md` lists them). An encoder meets the \
scale that it was made on if `mae_pretrain` is given the same values:

```
python -m monai.bundle run training --config_file ../mae_pretrain/configs/train.json \
--dataset_dir DATA {flags}
```
"""
