"""What a study says while it runs: a bar on a terminal, one line per finished run elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from lora_ext.study.plan import Run
from lora_ext.study.training_log import TRAINED, VALIDATED

BAR = "{percentage:3.0f}%|{bar:20}| {n:.1f}/{total} runs [{elapsed}<{remaining}] {desc}{postfix}"


class StudyProgress:
    """Follows the runs of a study.

    Args:
        total: number of runs.
        skipped: how many of them were finished before.
    """

    def __init__(self, total: int, skipped: int) -> None:
        self.total, self.done, self.skipped = total, skipped, skipped
        self.began = time.perf_counter()
        terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=total, initial=skipped, bar_format=BAR, disable=not terminal, dynamic_ncols=True
        )
        self.part = self.epoch = self.dice = ""

    def begin(self, run: Run, part: str = "") -> None:
        """A run begins.

        Args:
            run: the run.
            part: name of the part it belongs to, said before its own; empty for none.
        """
        self.epoch = self.dice = ""
        self.part = f"{part} " if part else ""
        self.bar.set_description_str(self.part + run.title, refresh=False)
        self.bar.set_postfix_str("")

    def follow(self, line: str) -> None:
        """Show the epoch that a line of the log tells of."""
        if match := VALIDATED.search(line):
            self.dice = f", validation pooled_dice {match[3]}"
        elif match := TRAINED.search(line):
            epoch, epochs = int(match[1]), int(match[2])
            self.bar.n = self.done + epoch / epochs
            self.epoch = f"epoch {epoch}/{epochs}, loss {match[3]}"
        else:
            return
        self.bar.set_postfix_str(self.epoch + self.dice)

    def end(self, record: Mapping[str, Any]) -> None:
        """A run ended: write a line about it."""
        self.done += 1
        self.bar.n = self.done
        self.bar.refresh()
        about = self.part + _about(record)
        tqdm.write(f"{self.done}/{self.total} {about}, {self._time_left()}")
        sys.stdout.flush()

    def close(self) -> None:
        """Take the bar off the terminal's last line."""
        self.bar.close()

    def _time_left(self) -> str:
        here = self.done - self.skipped
        seconds = (time.perf_counter() - self.began) / here * (self.total - self.done)
        return f"{tqdm.format_interval(round(seconds))} left"


def _about(record: Mapping[str, Any]) -> str:
    title = f"{record['row']} seed {record['seed']} fold {record['fold']}"
    minutes = sum(record["seconds"].values()) / 60
    if record["status"] == "done":
        return f"{title}: pooled_dice {record['summary']['pooled_dice']:.4f}, {minutes:.1f} min"
    reason = record["error"].splitlines()
    told = [line for line in reason if line.startswith("error: ")] or reason[-1:]
    return f"{title}: FAILED after {minutes:.1f} min ({told[-1]})"
