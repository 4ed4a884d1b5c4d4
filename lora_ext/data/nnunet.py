"""Raw data sets of nnU-Net v2: ``case_0000`` files, channel and label names in dataset.json."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_ext.data.datalist import channel_names, check_listed_once, check_types
from lora_ext.data.form import CasePaths, Task
from lora_ext.images.image_file import ENDINGS
from lora_ext.images.listing import entries

_IGNORE = "ignore"  # nnU-Net's name for voxels that are not annotated


def read_nnunet(source: Path, content: Mapping[str, Any]) -> Task:
    """Read a raw data set of nnU-Net v2 (Isensee et al. 2021).

    Labels are a value each, or a list of values: then they are regions, which may overlap, and
    ``regions_class_order`` tells which value a region is written as. Values of the label ``ignore``
    are no labels: a label map that has them is refused.

    Args:
        source: its dataset.json.
        content: what that holds.

    Returns:
        The task, a file per channel.

    Raises:
        ValueError: a key that is missing or not in nnU-Net's form, a file ending of no known
            format, or a case without one of its channels.
    """
    check_types(
        source, content, {"channel_names": dict, "labels": dict}, optional={"dataset": dict}
    )
    channels = channel_names(source, content["channel_names"], "channel_names")
    regions = _regions(source, content["labels"])
    ending = content.get("file_ending", ".nii.gz")
    if ending not in ENDINGS:
        raise ValueError(
            f"{source}: expected a file_ending out of {', '.join(ENDINGS)}, got {ending!r}"
        )
    test = _grouped(source.parent / "imagesTs", ending, len(channels))
    cases = {
        "training": _training(source, content.get("dataset"), ending, len(channels)),
        "test": tuple(CasePaths(name, files) for name, files in test.items()),
    }
    if not cases["training"] and not cases["test"]:
        raise ValueError(
            f"{source}: expected images named <case>_0000{ending} in imagesTr or imagesTs beside "
            "it, got none"
        )
    check_listed_once(source, cases)
    labels = _value_names(regions, content.get("regions_class_order"))
    return Task(source, channels, labels, cases["training"], cases["test"], regions)


def _training(
    source: Path, listed: Mapping[str, Any] | None, ending: str, count: int
) -> tuple[CasePaths, ...]:
    """Take the cases that dataset.json lists, or those of imagesTr."""
    if listed is None:
        found = _grouped(source.parent / "imagesTr", ending, count)
        labels = source.parent / "labelsTr"
        return tuple(CasePaths(n, files, labels / f"{n}{ending}") for n, files in found.items())
    cases = []
    for name, entry in listed.items():
        files = entry.get("images") if isinstance(entry, Mapping) else None
        label = entry.get("label") if isinstance(entry, Mapping) else None
        if not isinstance(files, list) or len(files) != count or not isinstance(label, str):
            raise ValueError(
                f"{source}: expected {count} images and a label for the case {name}, got {entry!r}"
            )
        paths = tuple(source.parent / str(path) for path in files)
        cases.append(CasePaths(str(name), paths, source.parent / label))
    return tuple(cases)


def _grouped(folder: Path, ending: str, count: int) -> dict[str, tuple[Path, ...]]:
    """Put the files ``<case>_<four digits>`` of a folder together to cases."""
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}")
    for path in entries(folder) if folder.is_dir() else ():
        if not path.name.endswith(ending):
            continue  # a preview, or the data file of a header
        match = pattern.fullmatch(path.name)
        if match is None:
            raise ValueError(
                f"{path}: expected the name <case>_0000{ending}, the channel in four digits, got "
                "another name"
            )
        found[match[1]][int(match[2])] = path
    for case, files in found.items():
        if set(files) != set(range(count)):
            raise ValueError(
                f"{folder}: expected the channels 0 to {count - 1} of case {case}, as "
                f"channel_names says, got {', '.join(map(str, sorted(files)))}"
            )
    return {
        case: tuple(files[channel] for channel in range(count)) for case, files in found.items()
    }


def _regions(source: Path, labels: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the label values by name, without the background."""
    values = {
        str(name): value if isinstance(value, list) else [value] for name, value in labels.items()
    }
    whole = [type(v) is int and v >= 0 for group in values.values() for v in group]
    if not all(whole) or not all(values.values()) or values.get("background") != [0]:
        raise ValueError(
            f"{source}: expected labels as name: value or name: [values], whole numbers, with "
            f"background: 0, got {dict(labels)!r}"
        )
    return {name: group for name, group in values.items() if name not in ("background", _IGNORE)}


def _value_names(regions: Mapping[str, list[int]], order: Any) -> dict[int, str]:
    """Name each value after the region that is written as it, else the smallest that has it."""
    written = dict(zip(order, regions, strict=False)) if isinstance(order, list) else {}
    values = sorted({value for group in regions.values() for value in group})
    smallest = {
        value: min(
            (name for name in regions if value in regions[name]), key=lambda n: len(regions[n])
        )
        for value in values
    }
    return {0: "background"} | {v: written.get(v, smallest[v]) for v in values}
