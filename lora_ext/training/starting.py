"""What a run does before its first step: the cases counted and named, the weights brought in.

These are handlers, and not entries of ``initialize``, so that no run can do without them.
"""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.handlers import CheckpointLoader
from torch import nn

import lora_ext
from lora_ext.images.image_file import case_name
from lora_ext.training.folders import check_no_model
from lora_ext.training.processes import check_shares
from lora_ext.training.stopping import tell_progress_of
from lora_ext.weights import load_model, model_folders, start_encoder
from lora_ext.weights.reading import read_tensors
from lora_ext.weights.record import MODEL, Folders

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "monai", "numpy")  # whose versions a record says


def training_record(cases: Any, **settings: Any) -> dict[str, Any]:
    """Make the part of a model's record that its training knows.

    Args:
        cases: what is trained on, as a data set lists it; their names are recorded.
        **settings: the settings of the training, by name.

    Returns:
        The record, as JSON can hold it.
    """
    record = {
        **settings,
        "trained_on": [_name(item) for item in cases],
        "versions": {"lora_ext": lora_ext.__version__} | {name: version(name) for name in PACKAGES},
    }
    return json.loads(json.dumps(record))


class StartTraining:
    """Say which cases a training has, and bring its encoder to where the regime starts from.

    A trainer that has MONAI's ``CheckpointLoader`` continues from the whole model that it
    loads; the encoder then stays as loaded, and the model is validated before the first epoch.

    Every epoch begins with a seed of its own, and every process and data worker too: order, crops
    and dropout of an epoch are the same in a run that was resumed.

    Args:
        validator: the evaluator that the trainer runs.
        network: the network; one without a regime (pre-training) has no encoder to start from.
        record: what the training knows of the model, see `training_record`; it goes where the
            network's ``config`` goes.
        pretrained: see `start_encoder`.
        ckpt_dir: see `start_encoder`.
        bundle_root: see `start_encoder`.
        seed: the run's seed; None leaves random numbers alone.
        replace: whether a model in `ckpt_dir` may be replaced.
    """

    def __init__(
        self,
        validator: Engine,
        network: Any,
        record: Mapping[str, Any] | None = None,
        pretrained: str | None = None,
        ckpt_dir: str | os.PathLike[str] | None = None,
        bundle_root: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        replace: bool = True,
    ) -> None:
        self.validator = validator
        self.network = network
        self.record = dict(record or {})
        self.places = (pretrained, ckpt_dir, bundle_root)
        self.seed = seed
        self.guarded = None if replace else ckpt_dir

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI trainer. Attach it before what restores an interrupted run.

        Raises:
            ValueError: if there is a ``CheckpointLoader`` whose file cannot be read; it would not
                say so in one sentence.
        """
        for loader in _loaders(engine):
            read_tensors(loader.load_path)
        tell_progress_of(engine)
        engine.add_event_handler(Events.STARTED, self.begin)
        if self.seed is not None:
            engine.add_event_handler(Events.EPOCH_STARTED, self.seed_epoch)

    def begin(self, engine: Engine) -> None:
        """Check the cases and load the encoder.

        Raises:
            ValueError: in a folder that holds a model, without a validation case for every process,
                or if the encoder does not fit.
        """
        if self.guarded is not None and not _loaders(engine):
            check_no_model(self.guarded)
        held_out = _check_validation(self.validator)
        segments = hasattr(self.network, "regime")
        logger.info(
            "%d training %s, %d for validation (%s)",
            len(_items(engine)), "cases" if segments else "volumes", len(held_out),
            _shown(held_out),
        )  # fmt: skip
        for modality, found in self.record.get("volumes", {}).items():
            logger.info("%s: %d volumes, intensity %s", modality, *found.values())
        self.network.config.update(self.record)
        if not segments:
            return
        if _loaders(engine):
            logger.info("continuing from the whole model that CheckpointLoader loads")
            engine.add_event_handler(Events.EPOCH_STARTED(once=1), self._validate)
        else:
            start_encoder(self.network, *self.places)

    def seed_epoch(self, engine: Any) -> None:
        """Seed what draws in an epoch: torch, with it the data workers, and the transforms."""
        words = np.random.SeedSequence([self.seed, idist.get_rank(), engine.state.epoch])
        number = int(words.generate_state(1)[0])
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)
        set_rnd(engine.data_loader.dataset, number)

    def _validate(self) -> None:
        self.validator.run(0)  # type: ignore[arg-type]  # a MONAI evaluator takes the epoch


class LoadModel:
    """Load the whole model before an evaluation or inference begins.

    Args:
        network: the network to load it into; for an ensemble a ``torch.nn.ModuleList``.
        ckpt_dir: folder of ``model.pt``, or those of an ensemble in the order of its networks.
    """

    def __init__(self, network: Any, ckpt_dir: Folders) -> None:
        self.networks: list[Any] = (
            list(network) if isinstance(network, nn.ModuleList) else [network]
        )
        self.paths = [folder / MODEL for folder in model_folders(ckpt_dir)]

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI evaluator."""
        tell_progress_of(engine)
        engine.add_event_handler(Events.STARTED, self.load)

    def load(self, engine: Engine) -> None:
        """Load each ``model.pt``.

        Raises:
            ValueError: without a case, or if the model is missing or does not fit.
        """
        items = _check_validation(engine)
        trained_on: set[str] = set()
        for network, path in zip(self.networks, self.paths, strict=True):
            load_model(network, path)
            trained_on |= set(network.config.get("trained_on", []))
        models = ", ".join(map(str, self.paths))
        logger.info("model of %s, %d cases (%s)", models, len(items), _shown(items))
        seen = sorted(trained_on & {_name(item) for item in items})
        if seen:
            logger.warning(_SEEN, len(seen), len(items), _listed(seen))
        for network in self.networks:
            network.config["seen_in_training"] = seen


def _items(engine: Any) -> Sequence[Any]:
    """The items that an engine's data loader reads, as the config lists them."""
    return engine.data_loader.dataset.data


def _check_validation(validator: Any) -> Sequence[Any]:
    items = _items(validator)
    if not items:
        raise ValueError(
            "validation cases: expected at least one, got none; the model that is kept is the best "
            "in validation (MONAI Label: val_split above 0 and two labels or more)"
        )
    check_shares(items)
    return items


_SEEN = (
    "%d of %d cases were TRAINED ON (%s): how well they are segmented says nothing about new "
    "patients; leave --fold, --num_folds and --split_seed out to score the cases that were held out"
)


def _name(item: Any) -> str:
    """A case's name as the record has it."""
    if not isinstance(item, Mapping):
        return str(item)
    image = item.get("image")
    first = image[0] if isinstance(image, (list, tuple)) else image
    return str(item.get("case") or case_name(str(first)))


def _shown(items: Sequence[Any]) -> str:
    return _listed([_name(item) for item in items])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _loaders(engine: Engine) -> list[CheckpointLoader]:
    listeners = engine._event_handlers.get(Events.STARTED, [])
    return [listener for listener, *_ in listeners if isinstance(listener, CheckpointLoader)]
