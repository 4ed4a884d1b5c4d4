"""What inference says in the console: a bar, and where each segmentation went."""

from __future__ import annotations

import logging
import os
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar

logger = logging.getLogger(__name__)


class CaseLog:
    """A progress bar over the cases, and a closing line that says where the files are.

    Args:
        output_dir: the folder that the segmentations are written to.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.output_dir = os.fspath(output_dir)
        self.cases = 0

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI evaluator."""
        ProgressBar(desc="inference", disable=None).attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def _count(self, engine: Engine) -> None:
        output: Any = engine.state.output
        self.cases += len(output)

    def _close(self, engine: Engine) -> None:
        logger.info("%d segmentations written to %s", self.cases, self.output_dir)
