"""Names of image channels: as they were asked for, or as other data sets call the same sequence."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

logger = logging.getLogger(__name__)

# One sequence a line, as the Decathlon, BraTS (to 2021, since 2023) and nnU-Net name it.
SYNONYMS = (
    ("flair", "t2f", "t2flair", "t2-flair", "t2_flair"),
    ("t1w", "t1", "t1n"),
    ("t1gd", "t1c", "t1ce", "t1wgd", "t1w-gd", "t1w_gd", "t1wce", "t1post"),
    ("t2w", "t2"),
    ("pet", "pt", "suv"),
    ("ct",),
    ("adc",),
)


def same_sequence(one: str, other: str) -> bool:
    """Whether two names are those of one sequence, in upper or lower case."""
    first, second = _plain(one), _plain(other)
    return first == second or any({first, second} <= set(map(_plain, names)) for names in SYNONYMS)


def find_channels(modalities: Sequence[str], channels: Sequence[str], source: object) -> list[int]:
    """Find the channels of the named modalities.

    A channel of the very name counts before one that another data set would call so.

    Args:
        modalities: names in any order, in upper or lower case.
        channels: the channels of a data set.
        source: the data set, for errors and for the console.

    Returns:
        Index of each modality's channel, in the order asked.

    Raises:
        ValueError: no modality, one that the data set does not have or has twice, or one asked
            twice.
    """
    available = ", ".join(channels)
    if isinstance(modalities, str) or not modalities:
        raise ValueError(
            f"modalities: expected a list of names out of {available}, got {modalities!r}"
        )
    asked = [str(name).lower() for name in modalities]
    held = [channel.lower() for channel in channels]
    found = []
    for modality, name in zip(modalities, asked, strict=True):
        if asked.count(name) > 1:
            raise ValueError(
                f"modalities: expected each of {available} once, got {modality!r} twice"
            )
        found.append(held.index(name) if name in held else _synonym(modality, asked, held))
        if found[-1] is None:
            raise ValueError(f"modality {modality!r} is not in {source}; available are {available}")
    indices = [index for index in found if index is not None]
    tell_names(source, [(m, channels[i]) for m, i in zip(modalities, indices, strict=True)])
    return indices


def check_names(modalities: Sequence[str]) -> tuple[str, ...]:
    """Check a list of channels' names.

    Args:
        modalities: what was given.

    Returns:
        The names.

    Raises:
        ValueError: no list, no name, or a name twice, in upper or lower case.
    """
    names = () if isinstance(modalities, str) else tuple(str(name) for name in modalities)
    if not names or len({name.lower() for name in names}) < len(names):
        raise ValueError(
            f"modalities: expected a list of names, each of them once, got {modalities!r}"
        )
    return names


def aliases(modalities: Iterable[str]) -> dict[str, str]:
    """List the names, in lower case, by which files may call some modalities.

    Args:
        modalities: the modalities asked for.

    Returns:
        The modality of each name: its own, and its synonyms where only one modality is asked for of
        a sequence.
    """
    asked = [str(modality) for modality in modalities]
    named: dict[str, str] = {}
    for names in SYNONYMS:
        own = [modality for modality in asked if _plain(modality) in set(map(_plain, names))]
        named |= dict.fromkeys(names, own[0]) if len(own) == 1 else {}
    return named | {modality.lower(): modality for modality in asked}


def every_alias() -> dict[str, str]:
    """List all names of `SYNONYMS`, each with the first of its line."""
    return {name: names[0] for names in SYNONYMS for name in names}


def split_name(stem: str, names: Iterable[str]) -> tuple[str, str]:
    """Split ``<case>_<modality>``, also with a hyphen or a dot, by the longest name that fits.

    Args:
        stem: name of a file or folder, without ending.
        names: modalities' names, in lower case.

    Returns:
        The case, and the name that fits; the stem and an empty text where none does.
    """
    for name in sorted(names, key=len, reverse=True):
        case = stem[: -len(name) - 1]
        if case and stem.lower().endswith((f"_{name}", f"-{name}", f".{name}")):
            return case, name
    return stem, ""


def tell_names(source: object, taken: Iterable[tuple[str, str]]) -> None:
    """Tell in one line which modalities a data set calls by other names.

    Args:
        source: the data set.
        taken: the modalities that were asked for, each with what it is called there.
    """
    other = [f"{asked} is {called}" for asked, called in taken if asked.lower() != called.lower()]
    if other:
        logger.info("%s: channels by other names: %s", source, ", ".join(other))


def _synonym(modality: str, asked: Sequence[str], held: Sequence[str]) -> int | None:
    """Return the one channel that is the same sequence and that nobody asked for by its name."""
    fitting = [
        index
        for index, channel in enumerate(held)
        if channel not in asked and same_sequence(modality, channel)
    ]
    rivals = [name for name in asked if name not in held and same_sequence(modality, name)]
    return fitting[0] if len(fitting) == len(rivals) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())
