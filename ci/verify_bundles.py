"""Verify every bundle as the Model Zoo does, offline and at the bundles' own sizes.

Usage: ci/verify_bundles [--bundle NAME[,NAME]|FOLDER] [--root bundles] [--processes 2]

All bundles that the generator makes must be below the root, and no others. Each is verified on a
copy in a temporary folder, with freshly drawn weights. Exits with 1 if any check fails.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from textwrap import shorten
from typing import Any

import fire
import torch
from verification import CHECKS, Subject, prepare

from lora_ext.bundles.generator import PLAN, all_facts
from lora_ext.bundles.starting import user_error

QUIET = ("monai.apps", "monai.bundle.scripts", "monai.bundle.workflows", "lora_ext", "ignite")


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


def verify(bundle: Path) -> list[Result]:
    """Verify one bundle on a copy in a temporary folder.

    Args:
        bundle: the bundle's folder.

    Returns:
        A result per check, each printed as it comes; a single one if the copy could not be made.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            subject = prepare(bundle, Path(folder))
        except Exception as error:
            return [_say(Result(bundle.name, "prepare", 0.0, _sentence(error)))]
        return run_checks(subject)


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
    """Format a line per bundle with the seconds of every check, or FAILED."""
    rows = [f"{'bundle':<20}" + "".join(f"{name:>13}" for name in CHECKS)]
    for bundle in dict.fromkeys(result.bundle for result in results):
        own = {
            r.check: "FAILED" if r.problem else f"{r.seconds:.1f} s"
            for r in results
            if r.bundle == bundle
        }
        rows.append(f"{bundle:<20}" + "".join(f"{own.get(name, 'not run'):>13}" for name in CHECKS))
    return "\n".join(rows)


def check_set(root: Path) -> list[str]:
    """Return the names of the bundles below a folder, which must be those of the generator.

    Bundles that `new_bundle` planned may lie beside them, and are verified too.

    Raises:
        ValueError: if one is missing, or has no source.
    """
    planned = sorted(path.parents[1].name for path in root.glob(f"*/{PLAN}"))
    found = {path.name for path in root.iterdir() if path.is_dir()} - set(planned)
    wanted = set(all_facts())
    if found != wanted:
        raise ValueError(
            f"{root}: expected the generator's bundles, got none of {sorted(wanted - found)} and "
            f"beside them {sorted(found - wanted)}; run `python -m lora_ext bundles --write`"
        )
    return [*all_facts(), *planned]


def main(bundle: Any = None, root: str = "bundles", processes: int = 2) -> None:
    """Verify bundles, a line per check, and a table at the end.

    Args:
        bundle: one name or several, with commas, or the folder of a bundle that `new_bundle` made,
            wherever it lies; by default all.
        root: the folder of bundles.
        processes: bundles at a time; each takes about 4 GiB of memory at the paper's size.

    Raises:
        ValueError: for a bundle that is not one of the generator's, or a folder of others.
    """
    if isinstance(bundle, str) and (Path(bundle) / PLAN).is_file():
        root, bundle = str(Path(bundle).resolve().parent), Path(bundle).resolve().name
        names = [bundle]
    else:
        names = check_set(Path(root))
    chosen = names if bundle is None else [bundle] if isinstance(bundle, str) else list(bundle)
    if unknown := sorted(set(chosen) - set(names)):
        raise ValueError(f"--bundle: expected some of {names}, got {unknown}")
    start = time.perf_counter()
    results = _verify_all([Path(root) / name for name in chosen], min(processes, len(chosen)))
    failed = [result for result in results if result.problem]
    seconds = time.perf_counter() - start
    print(f"\n{table(results)}\n")
    print(f"{len(chosen)} bundles, {len(results)} checks, {len(failed)} failed, {seconds:.0f} s")
    if failed:
        sys.exit(1)


def _verify_all(bundles: list[Path], processes: int) -> list[Result]:
    if processes == 1:
        return [result for bundle in bundles for result in verify(bundle)]
    # one process on all cores waits for its one-threaded parts: drawing weights, scripting, files
    threads = max(1, (os.cpu_count() or 1) // processes)
    fresh = get_context("spawn")  # a fork would inherit torch's threads in an unknown state
    with ProcessPoolExecutor(processes, fresh, _start_process, (threads,)) as pool:
        return [result for results in pool.map(verify, bundles) for result in results]


def _start_process(threads: int) -> None:
    torch.set_num_threads(threads)
    quiet()


def quiet() -> None:
    """Leave the console to the checks' own lines."""
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="parsing config_file")  # MONAI, at every config
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch 2.13 on torch.jit


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


if __name__ == "__main__":
    quiet()
    fire.Fire(main)
