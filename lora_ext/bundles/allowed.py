"""What the settings of the bundles may be: types, and ranges in words and as tests.

Needs the standard library alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Allowed:
    """What a setting may be, in words and as a test of a value of the right type."""

    words: str
    fits: Callable[[Any], bool]


def is_integer(value: Any) -> bool:
    """Tell whether this is an integer, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_name(value: Any) -> bool:
    """Tell whether this is a text that no config takes for a reference or an expression.

    Args:
        value: what was given, or read from a file.
    """
    return (
        isinstance(value, str)
        and value.isprintable()
        and bool(value.strip())
        and value[0] not in "$@%_+~"
        and not set(value) & set("#'\"\\<>=/")
        and "::" not in value
    )


def _is_folder(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) and bool(str(value).strip())


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


TYPES: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "device": lambda value: True,  # torch's own check, see is_device
    "folder": lambda value: _is_folder(value),
    "folder or list": lambda value: all(map(_is_folder, _listed(value))) and bool(_listed(value)),
    "integer": is_integer,
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "boolean or list": lambda value: isinstance(value, (bool, list, tuple)),
    "number or mapping": lambda value: _is_number(value) or isinstance(value, Mapping),
    "list or empty list": lambda value: isinstance(value, (list, tuple)),
    "integer or list": lambda value: is_integer(value) or isinstance(value, (list, tuple)),
    "list": lambda value: isinstance(value, (list, tuple)) and bool(value),
    "mapping": lambda value: isinstance(value, Mapping) and bool(value),
    "text or mapping": lambda value: isinstance(value, (str, Mapping)) and bool(value),
}
ARTICLE = {kind: "an" if kind.startswith("integer") else "a" for kind in TYPES}


def at_least(low: int, unit: str = "") -> Allowed:
    """Allow numbers from `low` on, in `unit`."""
    return Allowed(f"{low} or more{unit and ', ' + unit}", lambda value: value >= low)


def one_of(*names: str) -> Allowed:
    """Allow these words."""
    return Allowed(", ".join(f"`{name}`" for name in names), lambda value: value in names)


def is_device(value: Any) -> bool:
    """Tell whether torch knows this device and it is there."""
    import torch

    try:
        device = torch.device(value)
    except (RuntimeError, TypeError):
        return False
    return device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()


def are_names(value: Any) -> bool:
    """Tell whether these are names, each once in whatever case."""
    return all(map(is_name, value)) and len({str(name).lower() for name in value}) == len(value)


def are_regions(value: Any) -> bool:
    """Tell whether these are names with lists of labels."""
    groups = list(value.values())
    if not all(isinstance(group, (list, tuple)) and group for group in groups):
        return False
    whole = all(is_integer(label) and label >= 0 for group in groups for label in group)
    return whole and are_names(list(value))


def is_intensity(value: Any) -> bool:
    """Tell whether this is a kind of intensity, or channels with kinds."""
    known = ("auto", "mr", "ct", "pet")
    if isinstance(value, Mapping):
        return are_names(list(value)) and all(kind in known for kind in value.values())
    return value in known


def unlisted(names: Sequence[str], kinds: Mapping[str, str]) -> set[str]:
    """List the names, in lower case, that have no kind."""
    return {str(name).lower() for name in names} - {str(name).lower() for name in kinds}


def is_window(value: Any) -> bool:
    """Tell whether these are two rising numbers."""
    return len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]


def is_spacing(value: Any) -> bool:
    """Tell whether these are three lengths in mm, all above 0 or all 0."""
    sizes = [size for size in value if _is_number(size) and size >= 0]
    return len(value) == len(sizes) == 3 and (all(sizes) or not any(sizes))


def is_roi(value: Any) -> bool:
    """Tell whether these are three multiples of 16."""
    return len(value) == 3 and all(is_integer(n) and n > 0 and n % 16 == 0 for n in value)


def are_stages(value: Any) -> bool:
    """Tell whether these are four positive integers."""
    return len(value) == 4 and all(is_integer(n) and n > 0 for n in value)


def are_heads(value: Any) -> bool:
    """Tell whether this is a positive integer, or four of them."""
    return value > 0 if is_integer(value) else are_stages(value)


def are_targets(value: Any) -> bool:
    """Tell whether these are linear layers that adapters fit, each once."""
    known = ("qkv", "out_proj", "linear1", "linear2")
    return all(name in known for name in value) and len(set(value)) == len(value)


def are_axes(value: Any) -> bool:
    """Tell whether these are axes of a volume, each once."""
    return all(is_integer(axis) and 0 <= axis <= 2 for axis in value) and _differ(value)


def _differ(value: Sequence[Any]) -> bool:
    return len(set(value)) == len(value)


def are_some(value: Any) -> bool:
    """Tell whether this is a truth value or a list of texts."""
    return isinstance(value, bool) or all(isinstance(name, str) for name in value)


def are_volumes(value: Any) -> bool:
    """Tell whether this is a volume in ml, or names with volumes."""
    volumes = value.values() if isinstance(value, Mapping) else [value]
    return all(_is_number(ml) and ml >= 0 for ml in volumes)


def anything(value: Any) -> bool:
    """Allow every value of the right type."""
    return True


ANY = Allowed("any", anything)
TRUTH = Allowed("`True`, `False`", anything)
NOT_NEGATIVE = Allowed("0 or more", lambda value: value >= 0)
SHARE = Allowed("0 to below 1", lambda value: 0 <= value < 1)
POSITIVE = Allowed("above 0", lambda value: value > 0)
