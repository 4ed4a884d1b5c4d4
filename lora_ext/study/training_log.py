"""What a bundle's training says in its log, read back: the lines of `TrainingLog`.

The log is taken, and not the TensorBoard events, since a resumed run goes on in the same file and
an epoch that was done twice simply counts the second time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

TRAINED = re.compile(r"epoch (\d+)/(\d+): loss (\S+), learning rate (\S+), (?:(\d+\.\d) s$)?")
CASES = re.compile(r"\b(\d+) training cases, \d+ validation cases ")
VALIDATED = re.compile(r"epoch (\d+)/(\d+): validation pooled_dice (\S+) ")


def read_curve(log: Path) -> list[dict[str, Any]]:
    """Read the learning curve out of a training log.

    Args:
        log: the log; it may not exist yet.

    Returns:
        One point per epoch: ``epoch``, ``loss``, ``learning_rate``, ``seconds`` of training to a
        tenth, and ``val_pooled_dice``, which is None where there was no validation.
    """
    points: dict[int, dict[str, Any]] = {}
    if not log.is_file():
        return []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := TRAINED.search(line):
            points[int(match[1])] = {
                "epoch": int(match[1]),
                "loss": float(match[3]),
                "learning_rate": float(match[4]),
                "seconds": float(match[5]) if match[5] else None,
                "val_pooled_dice": None,
            }
        elif (match := VALIDATED.search(line)) and int(match[1]) in points:
            points[int(match[1])]["val_pooled_dice"] = float(match[3])
    return [points[epoch] for epoch in sorted(points)]


def training_cases(log: Path) -> int | None:
    """The number of cases that a run trained on, None where its log does not tell."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    match = CASES.search(text)
    return int(match[1]) if match else None


def epoch_of(line: str) -> tuple[int, int] | None:
    """The epoch that a log line ends or validates, and their number; None for another line."""
    match = TRAINED.search(line) or VALIDATED.search(line)
    return (int(match[1]), int(match[2])) if match else None


def last_lines(log: Path, count: int = 12) -> str:
    """The last lines of a log that are not empty, empty text where there is no log."""
    if not log.is_file():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([line for line in lines if line.strip()][-count:])
