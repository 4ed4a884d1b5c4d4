"""What a training process says of its own device: the name and the peak memory."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from ignite.engine import Engine, Events

from lora_ext.files import whole_file


class DeviceRecord:
    """Write ``{"device": name, "peak_memory_mb": MiB}`` after every epoch.

    On a GPU the peak is what PyTorch allocated (``torch.cuda.max_memory_allocated``); on the CPU it
    is the largest resident size of the process, and null where the system does not tell.

    Args:
        path: the file to write. A peak that is already in it, from before an interruption, is
            kept if it is higher and was measured on the same device.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        """Listen to a MONAI trainer. Attach it after the validation."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Write the record of this process so far."""
        device = engine.state.device  # type: ignore[attr-defined]
        on_gpu = device.type == "cuda"
        name = torch.cuda.get_device_name(device) if on_gpu else "cpu"
        peak = torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else _resident_mb()
        if self.path.is_file() and peak is not None:
            before = json.loads(self.path.read_text(encoding="utf-8"))
            if before["device"] == name:
                peak = max(peak, before["peak_memory_mb"] or 0.0)
        with whole_file(self.path) as draft:
            draft.write_text(json.dumps({"device": name, "peak_memory_mb": peak}) + "\n")


def _resident_mb() -> float | None:
    """Largest resident size of this process in MiB; None on systems without ``getrusage``."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
