"""``python -m lora_ext study``: run what is unfinished, then write the tables and plots."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_ext.study.commands import as_word
from lora_ext.study.parts import Part, exit_if_failed, run_parts
from lora_ext.study.plan import plan_runs
from lora_ext.study.statistics import finished

OWN_FLAGS = ("bundles", "seeds", "folds", "reference")


def run_study(
    data_dir: str,
    out: str,
    bundles: Any = None,
    seeds: Any = 0,
    folds: Any = 0,
    reference: Any = None,
    **knobs: Any,
) -> None:
    """Train and evaluate bundles as a user would, and write tables and plots of all of them.

    The same call again skips what is finished and goes on with what was stopped. Exits with 1 if a
    run failed and with 130 if it was stopped.

    Args:
        data_dir: one task folder, or a folder that holds task folders.
        out: the study's folder.
        bundles: names of bundles, by default all whose data set is there.
        seeds: one or more seeds, each of the run and of its split into folds.
        folds: one or more folds.
        reference: names of reference networks, each run once per data set.
        **knobs: other top-level settings of ``train.json``. All regimes but baseline need
            ``pretrained``: a file, a pattern with ``{dataset}``, ``{seed}`` and ``{fold}``, or
            ``none`` to start from random weights.

    Raises:
        ValueError: for an unknown name, data or a pre-trained encoder that is not found, or a
            folder that holds runs with other knobs or data.
    """
    folder = Path(str(out))
    runs = plan_runs(str(data_dir), bundles, seeds, folds, reference, knobs)
    own = dict(zip(OWN_FLAGS, (bundles, seeds, folds, reference), strict=True))
    command = command_line("study", str(data_dir), str(out), own, knobs)
    parts = [Part(folder, runs)]
    results = run_parts(parts, folder, command)
    if finished(results[0]):
        from lora_ext.study.plots import write_plots
        from lora_ext.study.tables import write_tables

        write_tables(results[0], folder)
        write_plots(results[0], folder)
        print(f"results.json, tables and plots are in {folder}")
    exit_if_failed(parts, results)


def command_line(
    verb: str, data_dir: str, out: str, own: Mapping[str, Any], knobs: Mapping[str, Any]
) -> str:
    """Write the command line of a study or an ablation.

    Args:
        verb: ``study`` or ``ablation``.
        data_dir: the data folder.
        out: the study's folder.
        own: the verb's own flags, lists with commas between; left out where they are None.
        knobs: settings of ``train.json``.
    """
    words = ["python", "-m", "lora_ext", verb, "--data_dir", data_dir, "--out", out]
    for key, value in own.items():
        if value is not None:
            listed = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            words += [f"--{key}", listed]
    for key, value in knobs.items():
        words += [f"--{key}", as_word(value)]
    return shlex.join(words)
