"""Run the checks on bundles, say every result at once, and sum them up in a table."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from lora_ext.bundles.starting import user_error
from verification.checks import CHECKS
from verification.subject import Subject, prepare


@dataclass(frozen=True)
class Result:
    """One check of one bundle.

    Attributes:
        bundle: the bundle's name.
        check: the check's name.
        seconds: how long it took.
        problem: what is wrong; no text if nothing is.
    """

    bundle: str
    check: str
    seconds: float
    problem: str


def verify(bundle: Path, workplace: Path) -> list[Result]:
    """Verify one bundle on a copy, which is removed afterwards.

    Args:
        bundle: the bundle's folder.
        workplace: folder for the copy.

    Returns:
        A result per check, each printed as it comes; a single one if the copy could not be made.
    """
    try:
        subject = prepare(bundle, workplace)
    except Exception as error:
        return [_say(Result(bundle.name, "prepare", 0.0, _sentence(error)))]
    else:
        return run_checks(subject)
    finally:
        shutil.rmtree(workplace / bundle.name, ignore_errors=True)


def run_checks(subject: Subject, names: Sequence[str] = tuple(CHECKS)) -> list[Result]:
    """Run checks on a bundle that is prepared, all of them whatever their results.

    Args:
        subject: the bundle.
        names: the checks to run.

    Returns:
        A result per check, each printed as it comes.
    """
    path = list(sys.path)
    sys.path.insert(0, str(subject.folder))  # as the zoo does
    try:
        return [_run(name, subject) for name in names]
    finally:
        sys.path[:] = path


def table(results: Sequence[Result]) -> str:
    """A line per bundle with the seconds of every check, or FAILED."""
    rows = [f"{'bundle':<20}" + "".join(f"{name:>13}" for name in CHECKS)]
    for bundle in dict.fromkeys(result.bundle for result in results):
        own = {
            r.check: "FAILED" if r.problem else f"{r.seconds:.1f} s"
            for r in results
            if r.bundle == bundle
        }
        rows.append(f"{bundle:<20}" + "".join(f"{own.get(name, 'not run'):>13}" for name in CHECKS))
    return "\n".join(rows)


def _run(name: str, subject: Subject) -> Result:
    start, detail, problem = time.perf_counter(), "", ""
    try:
        detail = CHECKS[name](subject)
    except Exception as error:  # whatever is raised is what is wrong with the bundle
        problem = _sentence(error)
    seconds = time.perf_counter() - start
    return _say(Result(subject.folder.name, name, seconds, problem), detail)


def _say(result: Result, detail: str = "") -> Result:
    outcome = f"FAILED: {result.problem}" if result.problem else f"ok {detail}".rstrip()
    print(f"{result.bundle} {result.check}: {outcome} ({result.seconds:.1f} s)", flush=True)
    return result


def _sentence(error: BaseException) -> str:
    """What the error at the bottom of a chain says, on one line."""
    own = user_error(error)
    while own is None and error.__cause__ is not None:
        error = error.__cause__
    error = own or error
    return f"{type(error).__name__}: {shorten(str(error), 300)}"
