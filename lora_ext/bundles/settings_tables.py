"""The settings laid out: in each bundle's README, and by ``python -m lora_ext settings``.

Needs the standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lora_ext.bundles.settings import INFERENCE, Setting, settings_of


def settings_table(kind: str, defaults: dict[str, Any]) -> str:
    """Lay the settings of a kind of bundle out as a Markdown table.

    Args:
        kind: ``segmentation`` or ``pretraining``.
        defaults: values by name; a setting without one is found at the start.
    """
    rows = [
        (f"`{s.name}`", _default(s.name, defaults), s.type, s.allowed.words, _meaning(s))
        for s in settings_of(kind)
    ]
    return "\n".join(_row(row) for row in (("Setting", "Default", "Type", "Allowed", "Meaning"),
                                           ("---",) * 5, *rows))  # fmt: skip


def settings_text(kind: str, defaults: dict[str, Any], config: str | None = None) -> str:
    """Lay the settings out for a terminal, as a command's help does.

    Args:
        kind: ``segmentation`` or ``pretraining``.
        defaults: values by name; a setting without one is found at the start.
        config: ``train`` or ``inference``; None for both.
    """
    lines = []
    for s in settings_of(kind, config):
        allowed = f"{s.type}: {s.allowed.words}; default {_default(s.name, defaults) or 'found'}"
        lines += [f"--{s.name}", f"    {_meaning(s)}", f"    {allowed.replace('`', '')}"]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _default(name: str, defaults: dict[str, Any]) -> str:
    if name not in defaults:
        return ""
    value = defaults[name]
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _meaning(setting: Setting) -> str:
    return setting.meaning + (" (inference)" if setting.configs == (INFERENCE,) else "")
