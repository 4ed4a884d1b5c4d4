"""What a run was given on the command line, checked against the schema before anything is read.

MONAI takes any flag for a key of the config, and any word after the run id for the id of another
``initialize``: a misspelt flag changes nothing, and a path with a space in it switches the start
off. Both end a run here, as do values of the wrong type or out of range.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lora_ext.bundles.settings import (
    INFERENCE,
    NAMED,
    PRETRAINING,
    SEGMENTATION,
    TRAIN,
    check_values,
    settings_of,
)
from lora_ext.weights import check_given_sizes, model_folders, recorded_settings

# What MONAI itself, or nothing but a run id, refers to.
UNREFERENCED = {"imports", "initialize", "run", "finalize", "training", "evaluating"}
LIST = "python -m lora_ext settings lists them all"


def running_workflow() -> dict[str, Any] | None:
    """Find the attributes of the MONAI workflow among the callers.

    MONAI resolves relative paths against the working folder, and tells a config neither its own
    place nor what was given on the command line. But a config is run by MONAI's ``ConfigWorkflow``,
    which knows both. `_callers` is the package's only look at its callers' frames.

    Returns:
        The attributes of the nearest workflow; ``None`` for a config that is read by hand.
    """
    for local in _callers():
        # vars(), since a workflow's own attribute look-up may evaluate the config again
        own: dict[str, Any] = getattr(local.get("self"), "__dict__", {})
        if isinstance(own.get("config_root_path"), Path):
            return own
    return None


def running_config() -> Path | None:
    """Find the folder of the config among the callers: a workflow's, or that of MONAI's exports."""
    workflow = running_workflow()
    if workflow is not None:
        return Path(workflow["config_root_path"]).resolve()
    for local in _callers():
        given = local.get("config_file")
        if local["__name__"] == "monai.bundle.scripts" and given:
            first = given if isinstance(given, (str, Path)) else given[0]
            return Path(first).resolve().parent
    return None


def _callers() -> Iterator[Mapping[str, Any]]:
    """Yield the local names of each caller, with the name of its module."""
    frame = inspect.currentframe()
    while frame is not None:
        yield {**frame.f_locals, "__name__": frame.f_globals.get("__name__")}
        frame = frame.f_back


def check_flags() -> None:
    """Refuse what the running workflow was given and cannot mean.

    Raises:
        ValueError: for a stray word, a key that nothing uses, or a setting of the wrong type, out
            of range, or in contradiction to the record of the model that will be used or to the
            encoder that training starts from.
    """
    workflow = running_workflow()
    if workflow is None:
        return
    parser = workflow["parser"]
    _check_words(workflow)
    _check_keys(parser.get())
    names = [name for name in NAMED if name in parser.get()]
    sized = [name for name in names if "encoder_sizes" in str(parser.get(name))]
    given = {name: parser.get_parsed_content(name) for name in names if name not in sized}
    check_values(given)  # before an encoder is read, or downloaded
    _check_one_model(parser.get(), given["ckpt_dir"])
    given |= {name: parser.get_parsed_content(name) for name in sized}
    if "encoder_sizes" in parser.get() and "trained" not in parser.get():
        encoder = parser.get_parsed_content("encoder_sizes")
        if encoder["file"] is not None:
            check_given_sizes(encoder["file"], encoder["said"], given, flags=True)
    check_values(given)
    _check_backbone(workflow, given.get("backbone"))
    if "trained" in parser.get():
        names = parser.get("trained")["default"]
        _check_record(recorded_settings(given["ckpt_dir"], names), given)


def _check_one_model(config: Mapping[str, Any], ckpt_dir: Any) -> None:
    """Refuse several models where they are not averaged."""
    several = isinstance(ckpt_dir, (list, tuple))
    if "trained" in config:
        several = len(model_folders(ckpt_dir)) > 1
    if several and "pending" not in config:
        raise ValueError(
            f"--ckpt_dir: found several folders, {ckpt_dir}, expected one; only inference that "
            "segments averages models"
        )


def _check_backbone(workflow: Mapping[str, Any], backbone: str | None) -> None:
    """Refuse flags that the other backbone alone takes: they would change nothing."""
    config, own = workflow["parser"].get(), _as_written(workflow)
    for name, setting in NAMED.items():
        if backbone is None or setting.backbone in (None, backbone) or name not in config:
            continue
        if config[name] not in (own.get(name, config[name]), f"$@trained['{name}']"):
            raise ValueError(
                f"--{name}: got {config[name]!r}, which backbone {setting.backbone} alone takes; "
                f"leave it out for {backbone}, or pass --backbone {setting.backbone}"
            )


def _as_written(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as the bundle's own config has them, before flags and overlays."""
    using = "train" not in workflow["parser"].get()
    file = Path(workflow["config_root_path"]) / f"{'inference' if using else 'train'}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _check_words(workflow: Mapping[str, Any]) -> None:
    """Refuse words that MONAI took for the ids of what it runs."""
    run, rest = workflow["run_id"], (workflow["init_id"], workflow["final_id"])
    stray = [
        word for word, usual in zip(rest, ("initialize", "finalize"), strict=True) if word != usual
    ]
    stray += [] if run in workflow["parser"] else [run]
    if stray:
        raise ValueError(
            f"command line: found the stray word {str(stray[0])!r}; expected one run id, such as "
            'training, and flags; put a value that has spaces in quotes: --ckpt_dir "my run"'
        )


def _check_keys(config: Mapping[str, Any]) -> None:
    """Refuse a key, at the top or in a section such as ``train``, that nothing refers to."""
    used = set(_references(config))
    kind = PRETRAINING if "volumes" in config else SEGMENTATION
    own = {s.name for s in settings_of(kind, TRAIN if "train" in config else INFERENCE)}
    for key, value in config.items():
        if key in UNREFERENCED | own or key.startswith("_") or _is_wiring(value):
            continue
        if key not in used:
            raise ValueError(_unknown(key, sorted(own)))
        section = isinstance(value, Mapping) and key not in NAMED
        for part, inner in value.items() if section else ():
            if f"{key}::{part}" not in used and not _is_wiring(inner):
                raise ValueError(_unknown(f"{key}#{part}", [f"{key}#{k}" for k in value]))


def _is_wiring(value: Any) -> bool:
    """Whether this builds or computes something, as no mistyped flag does.

    Wiring may be left without a use by an overlay, or by MONAI Label, that replaces its user.
    """
    if isinstance(value, (list, tuple)):
        return any(map(_is_wiring, value))
    if isinstance(value, str):
        return value.startswith(("$", "@", "%"))
    return isinstance(value, Mapping) and "_target_" in value


def _references(node: Any) -> Iterator[str]:
    """Yield what a config refers to: each id, and the ids of the sections it lies in."""
    from monai.bundle.reference_resolver import ReferenceResolver

    if isinstance(node, Mapping):
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _references(value)
    elif isinstance(node, str):
        for reference in ReferenceResolver.match_refs_pattern(node):
            parts = reference.split("::")
            yield from ("::".join(parts[: count + 1]) for count in range(len(parts)))


def _unknown(key: str, known: list[str]) -> str:
    if key in NAMED:
        hint = "; it is a setting of another config, or of another bundle"
    else:
        meant = [name for name in known if name in NAMED and key in NAMED[name].also]
        meant += difflib.get_close_matches(key, [name for name in known if name != key], n=1)
        hint = f"; did you mean --{meant[0]}?" if meant else ""
    return f"--{key}: nothing in this bundle's configs uses it{hint}; {LIST}"


def _check_record(trained: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse settings that contradict the record of the model that will be used."""
    # Which cases to score (those trained on are named), and how files are read.
    free = {"fold", "num_folds", "split_seed", "resample_channels", "nan_to_num"}
    for name in trained.keys() & given.keys() - free:
        if _plain(trained[name]) != _plain(given[name]):
            raise ValueError(
                f"--{name}: got {given[name]!r}, but the model was trained with {trained[name]!r}; "
                "leave the flag out: the model's record says it"
            )


def _plain(value: Any) -> Any:
    """A value as JSON would hold it, with the order of a mapping."""
    if isinstance(value, Mapping):
        return [(key, _plain(item)) for key, item in value.items()]
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
