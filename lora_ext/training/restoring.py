"""Reading ``last.ckpt``: all of it is checked before anything of it is used."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from lora_ext.networks.config import FLAGS, few
from lora_ext.weights.reading import check_weights, read_content

COUNTS = ("epoch", "iteration", "max_epochs")  # from 1 on
OTHERS: dict[str, Any] = {"records": dict, "best_metric": (int, float), "best_metric_epoch": int}
# Of a record: the length of a run is compared apart, and the rest changes nothing it computes.
NOT_COMPARED = ("epochs", "encoder", "versions", "in_channels", "out_channels")
ADVICE = "give the --ckpt_dir of the run to resume, or start anew with --resume False"


def read_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of `LastCheckpoint`.

    Args:
        path: the file.

    Raises:
        ValueError: if it cannot be read, or is none.
    """
    state = read_content(path)
    if not isinstance(state, dict) or not {*COUNTS, *OTHERS} <= state.keys():
        found = few(sorted(map(str, state))) if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"{path}: found {found or 'nothing'} in it; expected the state of a training: {ADVICE}"
        )
    right = {key: type(state[key]) is int and state[key] > 0 for key in COUNTS}
    right |= {key: isinstance(state[key], kind) for key, kind in OTHERS.items()}
    for key in (key for key, fine in right.items() if not fine):
        raise ValueError(
            f"{path}: found {key} {str(state[key])[:40]}; expected the state of a training: "
            f"{ADVICE}"
        )
    return state


def check_records(
    state: Mapping[str, Any], objects: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Refuse the state of a run of other settings or cases.

    Args:
        state: what `read_state` read.
        objects: what will be restored, by name; a network says its settings as ``config``.
        path: the file, for messages.

    Raises:
        ValueError: one sentence that says what was changed.
    """
    for name, made in state["records"].items():
        ours = getattr(objects.get(name), "config", None)
        if ours is None or not isinstance(made, Mapping):
            continue
        keys = [key for key in {**made, **ours} if key not in NOT_COMPARED]
        # as text, since the order of the regions counts
        wrong = [k for k in keys if json.dumps(made.get(k)) != json.dumps(ours.get(k))]
        if wrong:
            raise ValueError(
                f"{path}: was written by a run with other settings: "
                f"{few([_difference(key, made, ours) for key in wrong])}; resume with the same "
                "ones, or give another --ckpt_dir"
            )


def _difference(key: str, made: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    then, now = made.get(key), ours.get(key)
    if key == "trained_on":
        return f"{len(then or [])} training cases then, {len(now or [])} now, not the same ones"
    return f"--{FLAGS.get(key, key)} {then} then, {now} now"


def check_state(
    state: Mapping[str, Any], objects: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Refuse the state of another network, optimizer or schedule.

    Args:
        state: what `read_state` read.
        objects: what will be restored, by name.
        path: the file, for messages.

    Raises:
        ValueError: one sentence that says what differs.
    """
    for name, thing in objects.items():
        found = state.get(name)
        if not isinstance(found, dict):
            raise ValueError(
                f"{path}: found no {name} in it; expected the state of a training with one: "
                f"{ADVICE}"
            )
        if isinstance(thing, nn.Module):
            own = thing.state_dict()
            _check_keys(own.keys(), found.keys(), f"{path}, its {name}")
            check_weights(found, own, path)
        elif hasattr(thing, "param_groups"):
            _check_groups(thing.param_groups, found.get("param_groups"), f"{path}, its {name}")
        else:
            _check_keys(thing.state_dict().keys(), found.keys(), f"{path}, its {name}")


def restore(
    state: Mapping[str, Any], objects: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Load a state that `check_state` found to fit.

    Args:
        state: what `read_state` read.
        objects: what to restore, by name; networks come last, so that they stay as they are if
            something else fails.
        path: the file, for messages.

    Raises:
        ValueError: if an object does not take its state.
    """
    for name in sorted(objects, key=lambda name: isinstance(objects[name], nn.Module)):
        try:
            objects[name].load_state_dict(state[name])
        except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
            reason = str(error).strip().splitlines()[-1].strip() if str(error).strip() else ""
            raise ValueError(
                f"{path}: its {name} does not fit this run ({reason[:200]}): {ADVICE}"
            ) from error
        if name in state["records"]:
            objects[name].config["encoder"] = state["records"][name].get("encoder")


def _check_groups(own: list[dict[str, Any]], found: Any, source: str) -> None:
    """Refuse groups of parameters of another optimizer, or of other numbers of parameters."""
    if not isinstance(found, list) or not all(isinstance(group, dict) for group in found):
        raise ValueError(f"{source}: found no groups of parameters; expected {len(own)}: {ADVICE}")
    sizes = [[len(group.get("params", ())) for group in groups] for groups in (found, own)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{source}: found groups of {sizes[0]} parameters; expected {sizes[1]}, as the network "
            f"or --regime has: {ADVICE}"
        )
    for theirs, ours in zip(found, own, strict=True):  # a sharded one has more after its first step
        _check_keys(ours.keys(), theirs.keys() & ours.keys(), source)


def _check_keys(own: Any, found: Any, source: str) -> None:
    """Refuse other names than this run's."""
    lacking, foreign = sorted(own - found), sorted(map(str, found - own))
    if lacking or foreign:
        raise ValueError(
            f"{source}: lacks {few(lacking) or 'nothing'} and has {few(foreign) or 'nothing'} that "
            f"this run's does not; expected the state of the same network and optimizer: {ADVICE}"
        )
