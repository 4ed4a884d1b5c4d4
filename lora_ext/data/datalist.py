"""Data sets that a JSON file lists: tasks of the Decathlon, and MONAI datalists."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lora_ext.data.form import CasePaths, Task
from lora_ext.data.modalities import aliases, check_names, every_alias, split_name, tell_names
from lora_ext.images.image_file import case_name
from lora_ext.images.reader import open_image

logger = logging.getLogger(__name__)

_Name = Callable[[Path, Path], str]  # names a case after its first file and the list's folder


def read_datalist(
    source: Path, content: Mapping[str, Any], modalities: Sequence[str] | None = None
) -> Task:
    """Read a list of cases in the form that the Decathlon and MONAI use.

    The lists are ``training`` and, optional, ``validation``, and ``testing`` or ``test``. An entry
    has an ``image``, which is one file or a file per channel, a ``label``, and may have the
    ``fold`` in which it validates; the cases of ``validation`` validate in fold 0. Paths are
    relative to the list. With ``modality`` it is a Decathlon task, which names channels and labels
    and keeps its files in its folder.

    Args:
        source: the file.
        content: what that holds.
        modalities: names of the channels where the list does not name them; None to recognise them.

    Returns:
        The task.

    Raises:
        ValueError: a key that is missing or of another type, an entry of another form, a fold for
            some entries only, a case or a file listed twice, or a path that leaves a Decathlon
            task's folder.
    """
    named = "modality" in content
    kinds = {"modality": dict, "labels": dict, "training": list}
    lists = {"validation": list, "test": list, "testing": list}
    if named:
        check_types(source, content, kinds, lists)
    else:
        check_types(source, content, {}, {"labels": dict, "training": list, **lists})
        if not any(content.get(key) for key in ("training", "test", "testing")):
            raise ValueError(
                f"{source}: expected a Decathlon task (modality, labels, training), an nnU-Net raw "
                "data set (channel_names, labels) or a datalist (training, validation, testing), "
                f"got the keys {', '.join(content) or 'none'}"
            )
    cases = _cases(source, content, inside=named)
    check_listed_once(source, cases)
    _check_folds(source, content)
    labels = _labels(source, content["labels"]) if "labels" in content else {}
    regions = {name: [value] for value, name in labels.items() if value}
    if named:
        channels = channel_names(source, content["modality"], "modality")
        _check_counts(source, cases, len(channels))
    else:
        cases, channels = _recognised(source, cases, modalities)
    return Task(source, channels, labels, cases["training"], cases["test"], regions)


def check_types(
    source: Path,
    content: Mapping[str, Any],
    required: Mapping[str, type],
    optional: Mapping[str, type],
) -> None:
    """Check that the keys of a list are there and of their types.

    Args:
        source: the file, for the error.
        content: what it holds.
        required: type by key.
        optional: type by key, of those that may lack.

    Raises:
        ValueError: otherwise.
    """
    for key, kind in {**required, **optional}.items():
        if key in required and key not in content:
            *rest, last = required
            raise ValueError(
                f"{source}: expected the keys {', '.join(rest)} and {last}, got no {key!r}"
            )
        if not isinstance(content.get(key, kind()), kind):
            got = type(content[key]).__name__
            raise ValueError(f"{source}: expected a {kind.__name__} at {key!r}, got a {got}")


def channel_names(source: Path, names: Mapping[str, str], key: str) -> tuple[str, ...]:
    """Put channel names in the order of their numbers.

    Args:
        source: the file, for the error.
        names: names by number, as text.
        key: what the file calls them.

    Returns:
        The names.

    Raises:
        ValueError: numbers with a gap, or a name twice.
    """
    keys = [str(i) for i in range(len(names))]
    if not names or set(names) != set(keys):
        raise ValueError(
            f"{source}: expected the {key} keys 0, 1, ... without a gap, "
            f"got {', '.join(names) or 'none'}"
        )
    ordered = tuple(str(names[number]) for number in keys)
    if len({name.lower() for name in ordered}) < len(ordered):
        raise ValueError(
            f"{source}: expected each modality once, upper and lower case alike, "
            f"got {', '.join(ordered)}"
        )
    return ordered


def check_listed_once(source: Path, cases: Mapping[str, tuple[CasePaths, ...]]) -> None:
    """Check that no case and no file is listed twice.

    Args:
        source: the file, for the error.
        cases: the lists, by name.

    Raises:
        ValueError: otherwise.
    """
    lists = {key: Counter(case.name for case in listed) for key, listed in cases.items()}
    for key, counts in lists.items():
        for name, count in counts.items():
            if count > 1:
                raise ValueError(
                    f"{source}: expected each case once, got {name} {count} times in {key}"
                )
    for name in sorted(lists["training"].keys() & lists["test"].keys()):
        raise ValueError(f"{source}: expected each case once, got {name} in training and in test")
    listed = [path for part in cases.values() for c in part for path in (*c.images, c.label)]
    for path, count in Counter(path for path in listed if path).items():
        if count > 1:
            shown = os.path.relpath(path, source.parent)
            raise ValueError(
                f"{source}: expected each file once, got {shown} {count} times; every image needs "
                "a label map of its own"
            )


def _cases(
    source: Path, content: Mapping[str, Any], inside: bool
) -> dict[str, tuple[CasePaths, ...]]:
    """Read all entries, and name the cases; those of a Decathlon task after their files."""
    keys = {"training": "training", "validation": "training", "testing": "test", "test": "test"}
    read: dict[str, list[CasePaths]] = {"training": [], "test": []}
    for key, part in keys.items():
        for entry in content.get(key, []):
            read[part].append(_case(source, entry, key, part == "training", inside))
    naming = _by_file if inside else _naming([c for part in read.values() for c in part], source)
    return {
        part: tuple(
            CasePaths(naming(c.images[0], source.parent), c.image, c.label, c.fold) for c in listed
        )
        for part, listed in read.items()
    }


def _case(source: Path, entry: Any, key: str, labelled: bool, inside: bool) -> CasePaths:
    """Read one entry, still without a name."""
    if not labelled and isinstance(entry, (str, list)):
        entry = {"image": entry}
    held = entry if isinstance(entry, Mapping) else {}
    image, label, fold = held.get("image"), held.get("label"), held.get("fold")
    files = image if isinstance(image, list) else [image]
    paths = [*files, label] if labelled else files
    if not files or not all(isinstance(path, str) and path for path in paths):
        raise ValueError(
            f"{source}: expected a path for each of {'image, label' if labelled else 'image'} (or "
            f"a list of paths, one per channel, for image), got the {key} entry {entry!r}"
        )
    if fold is not None and (type(fold) is not int or fold < 0):
        raise ValueError(f"{source}: expected a fold of 0 or more, got the {key} entry {entry!r}")
    images = tuple(_path(source, str(path), inside) for path in files)
    return CasePaths(
        name="",
        image=images if isinstance(image, list) else images[0],
        label=_path(source, str(label), inside) if labelled else None,
        fold=0 if key == "validation" else fold,
    )


def _path(source: Path, path: str, inside: bool) -> Path:
    # By the text of the path: a link that the user put into the folder is theirs to follow.
    relative = os.path.normpath(path)
    if inside and (os.path.isabs(path) or PurePosixPath(relative).parts[:1] == ("..",)):
        raise ValueError(f"{source}: expected paths inside {source.parent}, got {path!r}")
    return source.parent / relative


def _check_folds(source: Path, content: Mapping[str, Any]) -> None:
    listed = content.get("training", [])
    without = [entry for entry in listed if entry.get("fold") is None]
    if len(without) not in (0, len(listed)):
        raise ValueError(
            f"{source}: expected a fold for every training entry or for none, got none for "
            f"{without[0]!r}"
        )


def _labels(source: Path, labels: Mapping[str, str]) -> dict[int, str]:
    if not all(key.isdecimal() for key in labels) or "0" not in labels:
        raise ValueError(
            f"{source}: expected label keys that are integers, with 0 for the background, "
            f"got {', '.join(labels) or 'none'}"
        )
    return {int(key): str(name) for key, name in labels.items()}


def _check_counts(source: Path, cases: Mapping[str, tuple[CasePaths, ...]], count: int) -> None:
    """Check that each case with a file per channel has all of them."""
    for case in (case for listed in cases.values() for case in listed):
        if isinstance(case.image, tuple) and len(case.image) != count:
            raise ValueError(
                f"{source}: expected {count} files for case {case.name}, one per channel, got "
                f"{len(case.image)}"
            )


def _by_file(path: Path, root: Path) -> str:
    return case_name(path)


def _naming(cases: Collection[CasePaths], source: Path) -> _Name:
    """Choose how to name cases: after the file, its folder, or its path, as tells them apart."""
    names: tuple[_Name, ...] = (
        _by_file,
        lambda path, root: split_name(case_name(path), every_alias())[0],
        lambda path, root: path.parent.name,
        lambda path, root: case_name("_".join(Path(os.path.relpath(path, root)).parts)),
    )
    single = not any(isinstance(case.image, tuple) for case in cases)
    for name in names if single else names[1:]:
        found = {name(case.images[0], source.parent) for case in cases}
        if len(found) == len(cases):
            return name
    return names[-1]


def _recognised(
    source: Path, cases: dict[str, tuple[CasePaths, ...]], modalities: Sequence[str] | None
) -> tuple[dict[str, tuple[CasePaths, ...]], tuple[str, ...]]:
    """Find which channels the cases have, by the names of their files or in the order asked."""
    every = [case for listed in cases.values() for case in listed]
    if modalities is not None:
        check_names(modalities)
    names = every_alias() | aliases(modalities or ())
    found = [[split_name(case_name(p), names)[1] for p in case.images] for case in every]
    first = found[0]
    if all(isinstance(c.image, tuple) for c in every) and all(first):
        channels = tuple(names[name] for name in first)
        if set(modalities or ()) <= set(channels):
            called = zip(channels, first, strict=True)
            asked = modalities or channels
            tell_names(source, sorted(pair for pair in called if pair[0] in asked))
            return _sorted(source, cases, channels, names), channels
    channels = _in_order(every[0], modalities)
    _check_counts(source, cases, len(channels))
    if modalities is not None:
        logger.info(
            "%s names no channels: each image's are taken for %s, in that order",
            *(source, ", ".join(channels)),
        )
    return cases, channels


def _in_order(case: CasePaths, modalities: Sequence[str] | None) -> tuple[str, ...]:
    if modalities is not None:
        return tuple(map(str, modalities))
    count = len(case.images)
    if not isinstance(case.image, tuple):
        count = open_image(str(case.image)).num_channels
    return tuple(f"channel {number}" for number in range(count))


def _sorted(
    source: Path,
    cases: dict[str, tuple[CasePaths, ...]],
    channels: tuple[str, ...],
    names: Mapping[str, str],
) -> dict[str, tuple[CasePaths, ...]]:
    """Put the files of each case in the order of the channels, by their names."""

    def one(case: CasePaths) -> CasePaths:
        held = {names.get(split_name(case_name(p), names)[1], ""): p for p in case.images}
        if set(held) != set(channels) or len(case.images) != len(channels):
            raise ValueError(
                f"{source}: expected the channels {', '.join(channels)} by the names of the files "
                f"of case {case.name}, got {', '.join(p.name for p in case.images)}"
            )
        return CasePaths(case.name, tuple(held[c] for c in channels), case.label, case.fold)

    return {part: tuple(map(one, listed)) for part, listed in cases.items()}
