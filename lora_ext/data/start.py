"""What a run does about its data before it starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_ext.processes import rank_zero_first

logger = logging.getLogger(__name__)

PHANTOM_FOLDER = "phantom_"


def ensure_phantoms(dataset_dir: str | os.PathLike[str]) -> str:
    """Write the default phantoms if `dataset_dir` is a bundle's default and is not there yet.

    The default ``dataset_dir`` of a bundle is ``data/phantom_<task>``, so that a bundle runs
    without any data. A folder of any other name is left to be found missing. Of several processes
    in one run, rank 0 writes and the others wait.

    Args:
        dataset_dir: the bundle's ``dataset_dir``.

    Returns:
        `dataset_dir`, unchanged.

    Raises:
        ValueError: if the folder is named ``phantom_<task>`` for a task that has no phantoms.
    """
    folder = Path(dataset_dir)
    with rank_zero_first():
        if folder.name.startswith(PHANTOM_FOLDER) and not folder.exists():
            from lora_ext.data.phantoms import write_phantoms

            task = folder.name.removeprefix(PHANTOM_FOLDER)
            logger.info("no data set given: writing 24 %s phantoms to %s", task, folder)
            write_phantoms(task, folder)
    return os.fspath(dataset_dir)


def announce_cases(
    training: Sequence[dict[str, Any]], validation: Sequence[dict[str, Any]]
) -> None:
    """Log how many cases a run trains on and validates on, and which these are.

    Args:
        training: case items of the training set; may be empty.
        validation: case items of the validation set.

    Raises:
        ValueError: if there is no case to validate on, as with ``val_split`` 0 in MONAI Label.
    """
    if not validation:
        raise ValueError(
            "validation cases: found none; allowed is at least one, since the model that is kept "
            "is the best in validation (MONAI Label: val_split above 0 and two labels or more)"
        )
    names = [str(item.get("case", item["image"])) for item in validation]
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    if training:
        logger.info("%d training cases, %d validation cases (%s)", len(training), len(names), shown)
    else:
        logger.info("%d validation cases (%s)", len(names), shown)
