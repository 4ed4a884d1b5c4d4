"""Write the bundles from one source, and check that what is committed is what it gives.

A bundle's facts are three flat layers, ``{**base, **dataset, **regime}``. A layer may only replace
a key that the base has, by a value of the same JSON type. The pre-training bundle is one layer on
the same base. What was measured of a bundle is one more layer. A fact that is a text may hold other
facts. The templates under ``source/templates`` are the files of a bundle, those that all
bundles share and those of its kind; ``${fact}`` in them stands for a fact: alone in a JSON string
it becomes the fact's JSON value, inside a text it becomes text. What several configs have in common
is a fragment, spliced into their lists. Everything is written again every time. Needs the standard
library alone, so it is instantaneous.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lora_ext.bundles.settings_tables import settings_table
from lora_ext.files import whole_file

SOURCE = Path(__file__).parent / "source"
DATASETS = ("brats", "prostatex")
REGIMES = ("baseline", "finetune", "frozen", "lora16", "lora32", "lora64")
PRETRAINING = "mae_pretrain"
RUN_TIME_FOLDERS = ("models", "eval", "__pycache__")  # made by runs, not committed
PLAN = "docs/plan.json"  # in a bundle of other data: its regime and the layer of its facts
MEASURED = "measured.json"  # by bundle name: eval_metrics, performance, memory
KINDS_OF_IMAGES = {"mr": "MR", "ct": "CT", "pet": "PT"}  # values of `intensity`, as DICOM has them
WIDTH = 100  # characters of a line of generated JSON
FACT = re.compile(r"\$\{(\w+)\}")
FRAGMENT = (
    "_fragment_"  # in a template's list: a file of fragments/, with the facts beside the name
)


def bundle_facts() -> dict[str, dict[str, Any]]:
    """The merged facts of every segmentation bundle, by bundle name."""
    names = (f"{dataset}_{regime}" for dataset in DATASETS for regime in REGIMES)
    return {name: facts_of(name) for name in names}


def pretraining_facts() -> dict[str, Any]:
    """The merged facts of the pre-training bundle."""
    return facts_of(PRETRAINING)


def facts_of(
    name: str,
    more: dict[str, dict[str, Any]] | None = None,
    measured: bool = True,
    plan: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Merge the facts of one bundle.

    Args:
        name: the bundle's name.
        more: further layers, the last one wins, each under the name that errors call it by.
        measured: take in what was measured, which is true of the bundle's own settings alone.
        plan: regime and facts of a bundle of other data, see `PLAN`, in place of its layers here.

    Returns:
        Every fact of the base, and what follows from them, such as ``num_channels``.

    Raises:
        ValueError: for a layer with an unknown key or a value of another JSON type than the base's.
    """
    base = _read_json(SOURCE / "base.json")
    files = _layer_files(name) if plan is None else [SOURCE / f"regimes/{plan['regime']}.json"]
    layers = {str(path): _read_json(path) for path in files}
    if plan is not None:
        layers[PLAN] = plan["facts"]
    elif measured:
        layers[MEASURED] = _read_json(SOURCE / MEASURED).get(name, {})
    merged = dict(base)
    for where, layer in {**layers, **(more or {})}.items():
        merged |= check_layer(base, layer, where)
    merged |= _derived(name, merged)
    texts = {k: v for k, v in merged.items() if isinstance(v, str)}
    return merged | {k: _fill_text(v, merged, SOURCE / "base.json") for k, v in texts.items()}


def all_facts() -> dict[str, dict[str, Any]]:
    """The merged facts of every bundle, by bundle name."""
    return {**bundle_facts(), PRETRAINING: pretraining_facts()}


def check_layer(base: dict[str, Any], layer: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a layer if it only replaces what the base has, by values of the same JSON type.

    Raises:
        ValueError: for an unknown key, or a value of another JSON type than the base's.
    """
    for key, value in layer.items():
        if key not in base:
            raise ValueError(f"{where}: unknown key {key!r}; the base has {sorted(base)}")
        if base[key] is not None and type(value) is not type(base[key]):
            raise ValueError(
                f"{where}: {key!r} is a {type(value).__name__}; "
                f"the base has a {type(base[key]).__name__}"
            )
    return layer


def render_bundle(facts: dict[str, Any]) -> dict[str, str]:
    """Render the files of one bundle.

    Args:
        facts: one entry of `all_facts`.

    Returns:
        File contents by path relative to the bundle.
    """
    files = {}
    for name, path in sorted(_templates(facts["kind"]).items()):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            filled = _fill(json.loads(text), facts, path)
            text = lay_out(filled) + "\n"
        else:
            text = _fill_text(text, facts, path)
        files[name] = text
    return files


def render_all() -> dict[str, str]:
    """Render every bundle: file contents by path relative to the folder of bundles."""
    return {
        f"{name}/{path}": text
        for name, facts in all_facts().items()
        for path, text in render_bundle(facts).items()
    }


def write_bundles(folder: Path) -> None:
    """Write every bundle below `folder`, and remove generated files that are no longer made.

    What a run leaves in a bundle (``models/``, ``eval/``) stays.
    """
    files = render_all()
    for path, text in files.items():
        with whole_file(folder / path) as draft:
            draft.write_text(text, encoding="utf-8")
    for path in _found(folder) - files.keys():
        (folder / path).unlink()


def check_bundles(folder: Path) -> list[str]:
    """Compare the bundles below `folder` with their source.

    Returns:
        One sentence per difference: a file that is missing, differs, or has no source.
    """
    files, found = render_all(), _found(folder)
    problems = [f"{path}: missing" for path in files.keys() - found]
    problems += [f"{path}: not made by the generator" for path in found - files.keys()]
    for path in files.keys() & found:
        if (folder / path).read_text(encoding="utf-8") != files[path]:
            problems.append(f"{path}: differs from its source")
    return sorted(problems)


def _layer_files(name: str) -> list[Path]:
    if name == PRETRAINING:
        return [SOURCE / "pretraining.json"]
    dataset, _, regime = name.rpartition("_")
    return [SOURCE / f"datasets/{dataset}.json", SOURCE / f"regimes/{regime}.json"]


def _templates(kind: str) -> dict[str, Path]:
    """Template files of one kind of bundle, by path relative to the bundle."""
    folders = [SOURCE / "templates" / part for part in ("shared", kind)]
    return {
        path.relative_to(folder).as_posix(): path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }


def lay_out(node: Any, indent: str = "") -> str:
    """JSON for people: what fits on a line stays on one, objects inside lists excepted."""
    line = json.dumps(node, ensure_ascii=False)
    nested = isinstance(node, list) and any(isinstance(value, dict) for value in node)
    short = len(indent) + len(line) <= WIDTH and not nested
    if not isinstance(node, (dict, list)) or not node or (short and indent):
        return line
    inner = indent + "    "
    if isinstance(node, list):
        parts, ends = [lay_out(value, inner) for value in node], "[]"
    else:
        parts = [f"{json.dumps(key)}: {lay_out(value, inner)}" for key, value in node.items()]
        ends = "{}"
    joined = ",\n".join(inner + part for part in parts)
    return f"{ends[0]}\n{joined}\n{indent}{ends[1]}"


def _found(folder: Path) -> set[str]:
    """Files below `folder` that are not left by runs, nor of bundles that have a plan."""
    paths = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    committed = (p for p in paths if not set(p.parts[1:-1]) & set(RUN_TIME_FOLDERS))
    planned = {path.parents[1].name for path in folder.glob(f"*/{PLAN}")}
    return {p.as_posix() for p in committed if p.parts[0] not in planned}


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _derived(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Facts that follow from others."""
    return {
        "bundle": name,
        **_backbone_texts(facts),
        "settings_table": settings_table(facts["kind"], facts),
        "num_channels": len(facts["modalities"]),
        "num_regions": len(facts["regions"]),
        "patch_grid": [size // 16 for size in facts["roi_size"]],
        "modality_text": ", ".join(facts["modalities"]),
        "region_text": ", ".join(
            f"{name} = {{{', '.join(map(str, labels))}}}"
            for name, labels in facts["regions"].items()
        ),
        **_intensity_facts(facts),
        "eval_table": _table(facts["eval_metrics"]),
        "channel_def": {str(i): name for i, name in enumerate(facts["modalities"])},
        "region_def": {str(i): name for i, name in enumerate(facts["regions"])},
    }


def _intensity_facts(facts: dict[str, Any]) -> dict[str, str]:
    """What the metadata and the docs say of the channels' values."""
    given = facts["intensity"]
    by_name = given if isinstance(given, dict) else dict.fromkeys(facts["modalities"], given)
    kinds = [kind for kind in KINDS_OF_IMAGES if kind in by_name.values()] or ["mr"]
    (low, high), (least, most) = facts["ct_window"], facts["pet_window"]
    rules = {
        "mr": "normalised to zero mean and unit variance over its nonzero voxels",
        "ct": f"clipped to {low:g} .. {high:g} HU, less the centre of that window, divided by its "
        "width / √12",
        "pet": f"clipped to {least:g} .. {most:g}, less the lower end, divided by the width / √12",
    }
    inside = {"mr": "not zero", "ct": "above -500 HU", "pet": "any"}
    named = {
        kind: ", ".join(name for name, own in by_name.items() if own == kind) for kind in kinds
    }
    plain = kinds == ["mr"]
    return {
        "image_modality": ", ".join(KINDS_OF_IMAGES[kind] for kind in kinds),
        "image_format": "hounsfield" if kinds == ["ct"] else "magnitude",
        "normalization_text": f"each channel {rules['mr']}"
        if plain
        else "; ".join(f"{named[kind]} {rules[kind]}" for kind in kinds),
        "foreground_text": "voxels that are not zero in some channel"
        if plain
        else "voxels that are inside in some channel: "
        + ", ".join(f"{named[kind]} {inside[kind]}" for kind in kinds),
    }


def _backbone_texts(facts: dict[str, Any]) -> dict[str, str]:
    """What the backbone is called, and its encoder in a few words."""
    if facts["backbone"] == "swin_unetr":
        blocks = ", ".join(map(str, facts["depths"]))
        text = f"A single-channel Swin transformer (stages of {blocks} blocks)"
        return {"backbone_title": "SwinUNETR", "encoder_text": text}
    text = (
        f"A single-channel ViT (patches of 16x16x16 voxels, {facts['num_layers']} blocks, "
        f"{facts['hidden_size']} features)"
    )
    return {"backbone_title": "UNETR", "encoder_text": text}


def _table(metrics: dict[str, Any]) -> str:
    """A table in Markdown; no text at all for no metrics."""
    rows = [f"| {name} | {value} |" for name, value in metrics.items()]
    return "\n".join(["\n| metric | value |", "|---|---|", *rows, ""]) if rows else ""


def _fill(node: Any, facts: dict[str, Any], where: Path) -> Any:
    """Fill a JSON tree: a string that is one ``${fact}`` becomes the fact's value."""
    if _is_fragment(node):
        path = SOURCE / "fragments" / f"{node[FRAGMENT]}.json"
        return _fill(json.loads(path.read_text(encoding="utf-8")), {**facts, **node}, path)
    if isinstance(node, dict):
        return {key: _fill(value, facts, where) for key, value in node.items()}
    if isinstance(node, list):
        filled = [(value, _fill(value, facts, where)) for value in node]
        parts = [new if _is_fragment(value) else [new] for value, new in filled]
        return [value for part in parts for value in part]
    if not isinstance(node, str):
        return node
    whole = FACT.fullmatch(node)
    return _look_up(whole[1], facts, where) if whole else _fill_text(node, facts, where)


def _is_fragment(node: Any) -> bool:
    return isinstance(node, dict) and FRAGMENT in node


def _fill_text(text: str, facts: dict[str, Any], where: Path) -> str:
    def as_text(match: re.Match[str]) -> str:
        value = _look_up(match[1], facts, where)
        values = value if isinstance(value, list) else [value]
        short = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
        return "x".join(short)

    return FACT.sub(as_text, text)


def _look_up(key: str, facts: dict[str, Any], where: Path) -> Any:
    if key not in facts:
        raise ValueError(f"{where}: unknown fact {key!r}; known are {sorted(facts)}")
    return facts[key]
