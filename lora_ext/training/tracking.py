"""Experiment tracking with MLflow: what MONAI's handler is asked to log beyond losses and metrics.

``--tracking mlflow`` makes MONAI add its ``MLFlowHandler`` to the engines, and write the config
that is run as JSON. The functions here find both again; `RunRecord` logs the run's settings at the
start, and its files and state at the end. Without the flag there is neither, and nothing happens;
mlflow is imported by MONAI alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import monai
import torch
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler

import lora_ext
from lora_ext.weights import model_folders, trained_settings
from lora_ext.weights.record import Folders
from lora_ext.weights.start import NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Top-level keys of a config that are literal and no settings of the run; the first describes the
# bundle, the last two may hold a server's password.
NO_SETTINGS = {
    "_meta_", "save_execute_config", "experiment_name", "run_name", "is_not_rank0",
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


def run_settings(path: Path, ckpt_dir: Folders = ".") -> dict[str, Any]:
    """Read the settings out of an executed config: its literal top-level values.

    Args:
        path: a config that MONAI wrote.
        ckpt_dir: folder of the model, or those of an ensemble; what a run takes from its record is
            a setting too.

    Returns:
        The settings by name, with ``bundle`` and ``bundle_version``. Expressions, references and
        objects are left out, since they are wiring.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    meta = config.get("_meta_", {})
    settings = {"bundle": meta.get("name"), "bundle_version": meta.get("version")}
    if "trained" in config:
        settings |= trained_settings(ckpt_dir, config["trained"]["default"])
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


TRAINING = "training"
# An evaluation's config has them too, but how the model was trained is not to be read from it.
TRAINING_SETTINGS = {
    "training_cases", "epochs", "val_interval", "batch_size", "crops_per_case", "cache_rate",
    "learning_rate", "encoder_learning_rate", "warmup_epochs", "weight_decay", "compile",
    "activation_checkpointing", "pretrained", "resume", "overwrite", "modality_dropout",
}  # fmt: skip


class RunRecord:
    """Complete what MONAI's ``MLFlowHandler`` logs; without one (no ``--tracking``) do nothing.

    MONAI's handlers join whatever run of the experiment is not finished, be it one that was stopped
    last week or one that another process is writing. Here every run gets a name of its own, which
    the trainer's and the validator's handlers share; a resumed training continues in the run that
    was interrupted.

    Args:
        task: what is run, for the run's name: ``training``, ``evaluating`` or ``inference``.
        output_dir: the run's folder.
        config: the config's ``save_execute_config``, see `executed_config`.
        ckpt_dir: folder of the models, or those of an ensemble.
        files: files and folders below `output_dir` to log as artifacts at the end, as far as the
            run wrote them. The numbers of a ``metrics.json`` are logged as metrics too.
        validator: the evaluator that a trainer runs.
    """

    def __init__(
        self,
        task: str,
        output_dir: str | os.PathLike[str],
        config: object,
        ckpt_dir: Folders,
        files: Sequence[str] = (),
        validator: Engine | None = None,
    ) -> None:
        self.task = task
        self.output_dir = Path(output_dir)
        self.config = executed_config(config, output_dir)
        self.ckpt_dir = ckpt_dir
        self.files = list(files)
        self.validator = validator
        self.started = 0.0

    def attach(self, engine: Engine) -> None:
        """Listen to the engine that the run is. Attach it after those that write or restore."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.COMPLETED, self._end)

    def _begin(self, engine: Engine) -> None:
        trackers = mlflow_handlers(engine)
        if not trackers:
            return
        self.started = time.time()
        first = trackers[0]
        parameters = self._parameters(engine)
        resumed = engine.state.iteration > 0
        name, logged = self._join(first, resumed, parameters.get("bundle") or "")
        followers = mlflow_handlers(self.validator) if self.validator is not None else []
        for tracker in (*trackers, *followers):
            tracker.run_name = name
        parameters |= first.experiment_param or {}
        first.experiment_param = {k: v for k, v in parameters.items() if k not in logged}
        if self.config is not None:
            first.artifacts = (*first.artifacts, str(self.config))
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)
        for tracker in trackers:
            tracker.output_transform = _single(tracker.output_transform)
            # MONAI leaves the run of a validator open, which is right within a training alone
            if not engine.has_event_handler(tracker.close, Events.COMPLETED):
                engine.add_event_handler(Events.COMPLETED, tracker.close)

    def _parameters(self, engine: Engine) -> dict[str, Any]:
        state: Any = engine.state
        network = engine.network  # type: ignore[attr-defined]  # a MONAI engine
        sizes = [(p.numel(), p.requires_grad) for p in network.parameters()]
        settings = {} if self.config is None else run_settings(self.config, self.ckpt_dir)
        config = getattr(getattr(network, "module", network), "config", {})
        # those that came from the encoder's file are no literals of the config
        settings = {k: config[k] for k in NAMES.values() if k in config} | settings
        if self.task != TRAINING:
            settings = {k: v for k, v in settings.items() if k not in TRAINING_SETTINGS}
        return {
            **settings,
            "task": self.task,
            "output_dir": str(self.output_dir.resolve()),
            "ckpt_dir": self._models(),
            "device": str(state.device),
            "parameters": sum(size for size, _ in sizes),
            "trainable_parameters": sum(size for size, trained in sizes if trained),
            "lora_ext": lora_ext.__version__,
            "monai": monai.__version__,
            "torch": torch.__version__,
        }

    def _join(
        self, tracker: MLFlowHandler, resumed: bool, bundle: str
    ) -> tuple[str, dict[str, str]]:
        """The name of the run to write to, and the parameters that it has already."""
        old = self._interrupted(tracker, resumed)
        if old is not None:
            tracker.client.update_run(old.info.run_id, status="RUNNING")
            return old.info.run_name, old.data.params
        unique = f"{time.strftime('%Y%m%d_%H%M%S')}_{uuid.uuid4().hex[:4]}"
        return tracker.run_name or "_".join(filter(None, (bundle, self.task, unique))), {}

    def _interrupted(self, tracker: MLFlowHandler, resumed: bool) -> Any:
        """The unfinished run of the user's name, or the one to resume; ``None`` for a new one."""
        experiment = tracker.client.get_experiment_by_name(tracker.experiment_name)
        if experiment is None or not (tracker.run_name or resumed):
            return None
        runs = tracker.client.search_runs([experiment.experiment_id])  # the newest first
        runs = [run for run in runs if run.info.status != tracker.run_finish_status]
        if tracker.run_name:  # MONAI's handler takes the oldest
            runs = [run for run in reversed(runs) if run.info.run_name == tracker.run_name]
        else:
            same = {"task": self.task, "ckpt_dir": self._models()}
            runs = [run for run in runs if same.items() <= run.data.params.items()]
        return runs[0] if runs else None

    def _models(self) -> str:
        return ", ".join(str(folder.resolve()) for folder in model_folders(self.ckpt_dir))

    def _fail(self, engine: Engine, error: Exception) -> None:
        for tracker in mlflow_handlers(engine):
            if tracker.cur_run is not None:
                tracker.client.set_terminated(tracker.cur_run.info.run_id, "FAILED")
        raise error

    def _end(self, engine: Engine) -> None:
        trackers = [t for t in mlflow_handlers(engine) if t.cur_run is not None]
        for tracker in trackers[:1]:
            run: Any = tracker.cur_run
            run, client = run.info.run_id, tracker.client
            for path in self._written():
                folder = path.relative_to(self.output_dir).parent.as_posix()
                client.log_artifact(run, path, None if folder == "." else folder)
                if path.name == "metrics.json":
                    for name, value in _numbers(path).items():
                        client.log_metric(run, name, value)

    def _written(self) -> Iterator[Path]:
        """Files of `files` that are of this run, and not left by an earlier one."""
        for name in self.files:
            path = self.output_dir / name
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file() and file.stat().st_mtime >= self.started:
                    yield file


def _single(transform: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """MONAI's default gives the loss of an output that is not decollated as a tuple of one."""

    def unpacked(output: Any) -> Any:
        value = transform(output)
        return value[0] if isinstance(value, tuple) and len(value) == 1 else value

    return unpacked


def _numbers(path: Path) -> dict[str, float]:
    """The summary of a segmentation report, one flat level of numbers; undefined ones left out."""
    summary = json.loads(path.read_text(encoding="utf-8")).get("summary", {})
    regions = summary.pop("regions", {})
    flat = summary | {f"{name}_{k}": v for name, row in regions.items() for k, v in row.items()}
    return {name: float(value) for name, value in flat.items() if value is not None}
