"""What was checked, what was found, how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable


class Report:
    """Rows of checks; one that fails does not keep the next from being tried."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, float]] = []

    def check(self, name: str, run: Callable[[], str]) -> None:
        """Run a check.

        Args:
            name: what is checked.
            run: returns what was found, and raises if that is wrong.
        """
        start = time.perf_counter()
        try:
            verdict, found = "ok", run()
        except Exception as error:
            verdict, found = "FAILED", f"{type(error).__name__}: {error}"
        self.rows.append((verdict, name, found, time.perf_counter() - start))
        print(f"{verdict}: {name}", flush=True)

    def skip(self, name: str, why: str) -> None:
        """Note a check that cannot be made here."""
        self.rows.append(("skipped", name, why, 0.0))

    @property
    def failed(self) -> int:
        """The number of checks that failed."""
        return sum(verdict == "FAILED" for verdict, *_ in self.rows)

    def __str__(self) -> str:
        """The table."""
        width = max(len(name) for _, name, _, _ in self.rows)
        lines = [
            f"{verdict:<8} {name:<{width}} {seconds:6.1f} s  {found}"
            for verdict, name, found, seconds in self.rows
        ]
        passed = sum(verdict == "ok" for verdict, *_ in self.rows)
        return "\n".join([*lines, f"{passed} passed, {self.failed} failed"])


def require(holds: bool, sentence: str) -> None:
    """Raise `sentence` unless `holds`."""
    if not holds:
        raise ValueError(sentence)
