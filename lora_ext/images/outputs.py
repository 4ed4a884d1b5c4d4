"""Where segmentations may be written: never among the inputs, nor over what is there unasked."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_ext.files import take_folder, whole_file
from lora_ext.images.dicom_seg import DICOM_SEG, check_dicom_output
from lora_ext.images.image_file import check_output_ending

StrPath = str | os.PathLike[str]
Cases = Sequence[Mapping[str, Any]]
RECORD = ".segmented.json"  # in the folder of segmentations: the model and the data they are of
logger = logging.getLogger("lora_ext")


def pending_cases(
    cases: Cases,
    dataset_dir: StrPath,
    output_dir: StrPath,
    output_ext: str,
    model: StrPath | Sequence[StrPath],
    resume: bool = False,
    overwrite: bool = False,
    made_with: Mapping[str, Any] | None = None,
) -> Cases:
    """Choose the cases to segment, and make sure that no file is lost by it.

    Args:
        cases: items with ``case`` and ``image`` (a path, or one per channel).
        dataset_dir: folder of the data.
        output_dir: folder of the segmentations.
        output_ext: their format.
        model: the ``model.pt`` that segments, or those of an ensemble.
        resume: leave out the cases that have a segmentation of this model.
        overwrite: replace segmentations that are there.
        made_with: settings, by name, that a resumed run must share with the one that it resumes.

    Returns:
        All cases, or with `resume` those that are left.

    Raises:
        ValueError: if `output_dir` holds the run's inputs, or segmentations that are neither to be
            replaced nor of the run that is to be resumed; or DICOM is to be written and cannot be.
    """
    out = Path(output_dir)
    _check_no_inputs(out, Path(dataset_dir), cases)
    if output_ext == DICOM_SEG:
        check_dicom_output(cases)
    take_folder(out, "output_dir")
    paths = {
        item["case"]: out / f"{item['case']}{check_output_ending(output_ext)}" for item in cases
    }
    there = {path.name: path.stat().st_mtime_ns for path in paths.values() if path.exists()}
    ours = {
        "model": " ".join(_fingerprint(path) for path in _paths(model)),
        "dataset_dir": str(Path(dataset_dir).resolve()),
        **json.loads(json.dumps(made_with or {})),
    }
    if resume and there:
        _check_resumed(out, ours)
        before = _read(out)["before"]
        done = {name for name, changed in there.items() if before.get(name) != changed}
        logger.info("%d of %d cases are done in %s", len(done), len(cases), out)
        return [item for item in cases if paths[item["case"]].name not in done]
    if there and not overwrite:
        raise ValueError(
            f"{out}: found {len(there)} of {len(cases)} segmentations ({_few(there)}), expected "
            "none; give --resume True to leave out the cases that are done, --overwrite True to "
            "replace them, or another --output_dir"
        )
    with whole_file(out / RECORD) as draft:
        draft.write_text(json.dumps(ours | {"before": there}), encoding="utf-8")
    return cases


def _check_no_inputs(out: Path, dataset_dir: Path, cases: Cases) -> None:
    """Refuse a folder in which an image or a label of the data lies, links followed."""
    images = [path for item in cases for path in _paths(item["image"])]
    folders = {place for path in images for place in (path.parent.resolve(), path.resolve().parent)}
    folders |= {path.resolve() for path in images if path.is_dir()}  # DICOM series
    labelled = {dataset_dir.resolve(), *(folder.parent for folder in folders)}
    target = out.resolve()
    sibling = target.parent in labelled and target.name.lower().startswith(("images", "labels"))
    if target in folders or sibling:
        raise ValueError(
            f"{out}: found a folder of the data that is segmented, expected another one; nothing "
            "is written among images or labels: give another --output_dir"
        )


def _paths(image: Any) -> list[Path]:
    return [Path(path) for path in ([image] if isinstance(image, (str, os.PathLike)) else image)]


def _check_resumed(out: Path, ours: Mapping[str, Any]) -> None:
    """Refuse to add to segmentations of another model, other data or settings, or of none known."""
    found = _read(out)
    for key, wanted in ours.items():
        if found.get(key) != wanted:
            raise ValueError(
                f"{out}: found segmentations of the {key} {found.get(key, 'unknown')}, expected "
                f"{wanted}; give another --output_dir, or --overwrite True to replace them"
            )


def _fingerprint(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _read(out: Path) -> dict[str, Any]:
    try:
        found = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _few(names: Mapping[str, int]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
