"""Read a data set of any layout: Decathlon, nnU-Net, MONAI datalist, or a folder of files."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from lora_ext.data.datalist import read_datalist
from lora_ext.data.folders import read_folder
from lora_ext.data.form import Task
from lora_ext.data.nnunet import read_nnunet

LISTS = ("dataset.json", "datalist.json")  # files that make a folder a listed data set


def read_task(
    dataset_dir: str | os.PathLike[str],
    modalities: Sequence[str] | None = None,
    *,
    on_disk: Collection[str] = ("training", "test"),
    labelled: bool = True,
) -> Task:
    """Read what a data set holds, and check what it lists.

    - A ``dataset.json`` with ``modality``: a task of the Medical Segmentation Decathlon
      (Antonelli et al. 2022). With ``channel_names``: a raw data set of nnU-Net v2, see
      `read_nnunet`. Any other, or a ``datalist.json``: a MONAI datalist, see `read_datalist`.
    - A folder without such a file: cases by the names of files and folders, see `read_folder`.

    Args:
        dataset_dir: the data set's folder, or the JSON file that lists its cases.
        modalities: names of the channels where the data set does not name them; None to recognise
            them.
        on_disk: the lists whose files must exist; training needs no test images on disk.
        labelled: whether a folder's label maps are looked for; without, its cases are all ``test``.

    Returns:
        The task, its paths absolute.

    Raises:
        ValueError: a missing folder, key or file; channels, labels or cases that are not in the
            layout's form; a case or a file listed twice, or a case both as training and as test; a
            path that leaves a Decathlon task's folder.
    """
    place = Path(dataset_dir).expanduser().absolute()
    source = list_file(place)
    if source is None:
        return read_folder(place, modalities, labelled)
    content = _load(source)
    task = (
        read_nnunet(source, content)
        if "channel_names" in content
        else read_datalist(source, content, modalities)
    )
    listed = {"training": task.training, "test": task.test}
    for case in (case for name in on_disk for case in listed[name]):
        for path in (*case.images, case.label):
            if path is not None and not path.is_file():
                raise ValueError(f"{path}: found no such file; {source} lists it")
    return task


def list_file(place: Path) -> Path | None:
    """Find the JSON file that lists a data set's cases.

    Args:
        place: the data set's folder, or the file itself.

    Returns:
        The file; None for a folder without one.

    Raises:
        ValueError: no such folder, or a file of another kind.
    """
    if place.is_file() and place.suffix.lower() == ".json":
        return place
    if not place.is_dir():
        found = f"a {place.suffix or 'file'}" if place.is_file() else "no such folder"
        raise ValueError(
            f"{place}: found {found}; dataset_dir must be an existing folder, or the JSON file of "
            "a datalist"
        )
    return next((place / name for name in LISTS if (place / name).is_file()), None)


def _load(source: Path) -> dict[str, Any]:
    try:
        content = json.loads(source.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError(f"{source}: expected a list of cases, got JSON nested too deep") from error
    except ValueError as error:
        raise ValueError(f"{source}: expected valid JSON, got an error ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{source}: expected a JSON object, got a {type(content).__name__}")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of JSON's pairs; of two equal keys Python would keep the second in silence."""
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise ValueError(f"the key {key!r} stands there {count} times")
    return dict(pairs)
