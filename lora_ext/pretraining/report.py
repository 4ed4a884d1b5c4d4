"""What an evaluation of held-out volumes leaves: ``metrics.json`` and a line in the console."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from lora_ext.files import whole_file

logger = logging.getLogger(__name__)


class VolumeReport:
    """Write the held-out metrics when an evaluation ends.

    Args:
        output_dir: folder of ``metrics.json``.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.path = Path(output_dir) / "metrics.json"

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI evaluator."""
        engine.add_event_handler(Events.COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Write and log the metrics."""
        metrics: dict[str, Any] = {k: float(v) for k, v in engine.state.metrics.items()}
        with whole_file(self.path) as draft:
            draft.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        logger.info(
            "held-out masked-patch loss %.4f, %.4f for the patches' means alone; written to %s",
            metrics["val_loss"],
            metrics["val_mean_only_loss"],
            self.path.parent,
        )
