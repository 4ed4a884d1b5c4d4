"""Experiment tracking with MLflow: what MONAI's handler is asked to log beyond losses and metrics.

``--tracking mlflow`` makes MONAI add its ``MLFlowHandler`` to the engines, and write the config
that is run as JSON. The functions here find both again. Without the flag there is neither, and
nothing happens; mlflow is imported by MONAI alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Top-level keys of a config that are literal and no settings of the run; the first describes the
# bundle, the last two may hold a server's password.
NO_SETTINGS = {
    "_meta_", "rank_zero", "save_execute_config", "experiment_name", "run_name", "is_not_rank0",
    "tracking_uri", "tracking",
}  # fmt: skip


def check_tracking(config: object, output_dir: str | os.PathLike[str]) -> None:
    """Refuse to start a tracked run without mlflow, before any data is read.

    Args:
        config: see `executed_config`.
        output_dir: see `executed_config`.

    Raises:
        ValueError: if MLflow is asked for and not installed.
    """
    if config is True or importlib.util.find_spec("mlflow") is not None:
        return
    path = executed_config(config, output_dir)
    if path is None or "MLFlowHandler" in path.read_text(encoding="utf-8"):
        raise ValueError(
            "--tracking: found no package mlflow; install it (pip install mlflow), or leave "
            "--tracking out"
        )


def executed_config(config: object, output_dir: str | os.PathLike[str]) -> Path | None:
    """Find the config that MONAI wrote when it set up tracking.

    Args:
        config: the config's ``save_execute_config``: ``True`` as long as nothing is tracked, else
            where MONAI says it wrote, or ``None`` where it was told not to.
        output_dir: the run's folder.

    Returns:
        The file, if there is one.
    """
    if not isinstance(config, str):
        return None
    path = Path(config)
    if not path.is_file():
        # MONAI 1.6.1 appends to the text of output_dir as if it were an expression, so that with
        # a plain path this is OUT + '/config_20261125_204811.json'
        path = Path(output_dir) / path.name.rstrip("'")
    return path if path.is_file() else None


def run_settings(path: Path) -> dict[str, Any]:
    """Read the settings out of an executed config: its literal top-level values.

    Args:
        path: a config that MONAI wrote.

    Returns:
        The settings by name, with ``bundle`` and ``bundle_version``. Expressions, references and
        objects are left out, since they are wiring.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    meta = config.get("_meta_", {})
    settings = {"bundle": meta.get("name"), "bundle_version": meta.get("version")}
    return settings | {k: v for k, v in config.items() if k not in NO_SETTINGS and _literal(v)}


def mlflow_handlers(engine: Engine) -> list[MLFlowHandler]:
    """The handlers that log an engine to MLflow, none without ``--tracking mlflow``."""
    listeners = engine._event_handlers.get(Events.STARTED, [])
    owners = [getattr(function, "__self__", None) for function, *_ in listeners]
    return [owner for owner in owners if isinstance(owner, MLFlowHandler)]


def log_figure(engine: Engine, figure: Figure, path: str) -> None:
    """Log a figure to the engine's MLflow run, if it has one.

    Args:
        engine: the engine that is running.
        figure: the figure.
        path: its name among the run's artifacts, such as ``validation/epoch_0005.png``.
    """
    for tracker in mlflow_handlers(engine):
        if tracker.cur_run is not None:
            tracker.client.log_figure(tracker.cur_run.info.run_id, figure, path)


def _literal(node: Any) -> bool:
    if isinstance(node, dict):
        return "_target_" not in node and all(map(_literal, node.values()))
    if isinstance(node, list):
        return all(map(_literal, node))
    return not (isinstance(node, str) and node[:1] in ("$", "@", "%"))


__all__ = [
    "check_tracking",
    "executed_config",
    "log_figure",
    "mlflow_handlers",
    "run_settings",
]
