"""Where the running bundle lies, so that its default paths hold from any working folder."""

from __future__ import annotations

import inspect
from pathlib import Path

PACKAGED_IN = Path(__file__).resolve().parents[2]  # the bundle, where the package came in its zip


def bundle_root(name: str) -> str:
    """Find the folder of the bundle that is being run.

    MONAI resolves relative paths against the working folder and tells a config nothing of its own
    place. But a config is only ever evaluated by MONAI's ``ConfigWorkflow``, which knows the
    config files it was given, so the callers are asked first. Without a workflow (a config read
    by hand) the bundle is looked for in the working folder, and where the package itself lies.

    Args:
        name: the bundle's name.

    Returns:
        The bundle's absolute folder.

    Raises:
        ValueError: if the bundle is found nowhere; ``--bundle_root`` then has to be given.
    """
    running = _running_config_folder()
    here = Path.cwd()
    candidates = [here / "bundles" / name, here, PACKAGED_IN]
    if running is not None:
        candidates.insert(0, running.parent if running.name == "configs" else running)
    for folder in candidates:
        if (folder / "configs" / "metadata.json").is_file():
            return str(folder.resolve())
    tried = ", ".join(str(folder) for folder in candidates)
    raise ValueError(f"bundle {name!r} is in none of {tried}; give --bundle_root")


def _running_config_folder() -> Path | None:
    """The config folder of the MONAI workflow among the callers, if there is one."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        # vars(), since a workflow's own attribute look-up may evaluate the config again
        folder = getattr(caller, "__dict__", {}).get("config_root_path")
        if isinstance(folder, Path):
            return folder.resolve()
        frame = frame.f_back
    return None
