"""Configs that find `lora_ext` in their own bundle, from whatever folder they are run.

MONAI 1.6.1 evaluates every ``"$import x"`` of a config before anything else, and puts the bundle's
folder on ``sys.path`` only after ``initialize``, in ``run`` alone; the export commands never do. So
the package becomes an ordinary item of the config, made when it is first referred to: it looks for
the config files that are being read, and imports `lora_ext` from their bundle.
"""

from __future__ import annotations

import re
from typing import Any

IMPORT = "$import lora_ext"
USE = re.compile(r"(?<![\w.@])lora_ext\.")
IMPORTS = ["$import inspect", "$import pathlib", "$import sys"]
# The export commands hold the config file in `config_file_`, a workflow holds its config folder.
FOLDER = (
    "$[str(folder) for caller in inspect.stack(0) "
    "for path in (caller.frame.f_locals.get('config_file_'), "
    "inspect.getattr_static(caller.frame.f_locals.get('self'), 'config_root_path', None)) if path "
    "for folder in pathlib.Path(monai.utils.ensure_tuple(path)[0]).resolve().parents "
    "if (folder / 'lora_ext').is_dir()][:1]"
)
PACKAGE = {
    "package_folder": FOLDER,
    "lora_ext": {
        "_target_": "importlib.import_module",
        "_requires_": "$[sys.path.insert(0, folder) for folder in @package_folder]",
        "name": "lora_ext",
    },
}


def standalone(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Make a config, or an overlay of one, find the package in its own bundle.

    ``"$import lora_ext"`` becomes the item ``lora_ext``, and every expression that uses the package
    refers to that item; so does ``network_def``, which the export commands read on its own.

    Args:
        config: a bundle's config that imports `lora_ext`, or an overlay of such a config.
        where: what errors call it.

    Returns:
        The config, changed in nothing else.

    Raises:
        ValueError: if it imports from `lora_ext` in another way.
    """
    new = _refer(config)
    imports = new.get("imports", [])
    others = [line for line in imports if re.search(r"import.*\blora_ext\b|lora_ext.*import", line)]
    if set(others) - {IMPORT}:
        raise ValueError(f"{where}: imports {others}; a packaged config takes {IMPORT!r} alone")
    if IMPORT not in imports:
        return new
    kept = [line for line in imports if line != IMPORT and line not in IMPORTS]
    rest = {key: value for key, value in new.items() if key != "imports"}
    if isinstance(new.get("network_def"), dict):
        rest["network_def"] = new["network_def"] | {"_requires_": "@lora_ext"}
    return {"imports": IMPORTS + kept, **PACKAGE, **rest}


def uses_package(config: dict[str, Any]) -> bool:
    """Whether a config imports `lora_ext`."""
    return IMPORT in config.get("imports", [])


def _refer(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _refer(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_refer(value) for value in node]
    if isinstance(node, str) and node.startswith("$") and not node.startswith("$import"):
        return USE.sub("@lora_ext.", node)
    return node
