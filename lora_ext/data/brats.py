"""The labels of the BraTS challenges, which are not those of the Decathlon's Task01.

The Decathlon counts 1 edema, 2 non-enhancing tumour, 3 enhancing tumour. BraTS counts 1 necrotic or
non-enhancing core, 2 edema, and enhancing tumour as 4 until 2021 and as 3 since 2023.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

logger = logging.getLogger(__name__)

_UNTIL_2021 = re.compile(r"BraTS20\d\d_|BraTS\d\d_", re.IGNORECASE)
_SINCE_2023 = re.compile(r"BraTS-(GLI|MEN|MET|SSA)-", re.IGNORECASE)
MOST_LABELS = 255


def challenge_regions(cases: Sequence[str]) -> dict[str, list[int]]:
    """Return the regions of the BraTS challenge that cases are named after.

    Args:
        cases: names of cases.

    Returns:
        Labels of TC, WT and ET; empty where a case is named otherwise.
    """
    for pattern, enhancing in ((_UNTIL_2021, 4), (_SINCE_2023, 3)):
        if cases and all(map(pattern.match, cases)):
            return {"TC": [1, enhancing], "WT": [1, 2, enhancing], "ET": [enhancing]}
    return {}


def check_found_labels(
    found: Iterable[int],
    regions: Mapping[str, Collection[int]],
    own: Mapping[str, Collection[int]],
    source: object,
) -> None:
    """Check that regions fit the values of label maps that nothing names.

    Args:
        found: the values of all label maps.
        regions: labels of each region, as asked for.
        own: those that the data set defines; empty where unknown.
        source: the data set, for the message.

    Raises:
        ValueError: more values than labels have, or a region's label that is nowhere while there
            are labels that are in no region.
    """
    values = set(found) - {0}
    asked = {label for labels in regions.values() for label in labels}
    if len(values) > MOST_LABELS:
        raise ValueError(
            f"{source}: expected label maps of up to {MOST_LABELS} labels, got {len(values)} "
            "different values: images in the place of label maps"
        )
    known = {label for labels in own.values() for label in labels}
    flag = f'--regions "{_plain(own)}"' if own and values <= known else "--regions with these"
    if asked - values and values - asked:
        raise ValueError(
            f"{source}: expected the labels {_numbers(asked)} of the regions {_plain(regions)}, "
            f"got label maps with {_numbers(values)}; pass {flag}"
        )
    if values - asked:
        logger.info("%s: the labels %s are in no region", source, _numbers(values - asked))
    if values <= known and any(set(own.get(n, v)) != set(v) for n, v in regions.items()):
        logger.warning(
            "%s: the cases are named after BraTS, whose regions are %s, and the regions asked for "
            "are %s; unless the labels were changed, pass %s",
            *(source, _plain(own), _plain(regions), flag),
        )


def _plain(regions: Mapping[str, Collection[int]]) -> str:
    return str({name: list(labels) for name, labels in regions.items()}).replace(" ", "")


def _numbers(labels: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(labels)))
