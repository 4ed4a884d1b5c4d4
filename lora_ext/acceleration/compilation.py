"""``torch.compile`` where it works; where it does not, training runs without it."""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)


def compilation(wanted: bool, device: str | torch.device = "cpu") -> bool:
    """Say whether to compile the network: wanted, and possible on this machine.

    A small function is compiled as a trial, since a machine without a compiler shows that only when
    the first batch runs.

    Args:
        wanted: the setting ``compile``.
        device: where the network runs.

    Returns:
        `wanted`, or False where the trial failed; the reason is logged.
    """
    if not wanted:
        return False
    try:
        torch.compile(_trial, fullgraph=True)(torch.ones(8, device=device, requires_grad=True))
    except Exception as error:  # anything that a compiler, a driver or a file system can raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        logger.warning(
            "compile: torch.compile does not work here (%s); training without it", reason
        )
        return False
    return True


def _trial(x: torch.Tensor) -> torch.Tensor:
    return (torch.sin(x) * x).sum()
