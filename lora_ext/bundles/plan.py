"""What a new bundle is set to for a data set, and why: spacing, window, normalisation, memory.

Spacing and window sizes follow nnU-Net (Isensee et al. 2021), within the tokens of the paper.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_ext.data.intensity import CT, CT_AIR, CT_WINDOW, MR, PET, PET_WINDOW
from lora_ext.data.survey import CaseSurvey
from lora_ext.images.limits import available_memory, cached_bytes

PATCH = 16  # voxels along each edge of a token
TOKENS = 192  # of the paper's 128x128x48 voxels
ANISOTROPY = 3  # nnU-Net's: an axis this much coarser is treated apart
CROPS = 4  # in a step, as in the paper's bundles
FOLDS = 5
PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Decision:
    """One setting of a plan.

    Attributes:
        value: what it is set to, as JSON has it.
        reason: why.
    """

    value: Any
    reason: str


Plan = dict[str, Decision]  # by setting


def make_plan(
    cases: Sequence[CaseSurvey],
    kinds: Mapping[str, str],
    regions: Mapping[str, Sequence[int]],
    given: Mapping[str, Any],
) -> Plan:
    """Plan the settings of a bundle.

    Args:
        cases: surveys of the labelled cases.
        kinds: ``mr``, ``ct`` or ``pet`` by the name of a channel.
        regions: labels of each region.
        given: settings that the user chose; the others are planned around them.

    Returns:
        The decisions, by setting; those of `given` first.
    """
    plan = {name: Decision(value, "as given") for name, value in given.items()}

    def decide(name: str, decision: Decision) -> Any:
        return plan.setdefault(name, decision).value

    decide("modalities", Decision(list(kinds), "all channels of the data set, in its order"))
    decide("regions", Decision({k: list(v) for k, v in regions.items()}, _present(cases, regions)))
    decide("intensity", Decision(dict(kinds), _named(cases, kinds)))
    decide("ct_window", plan_window(cases, [name for name in kinds if kinds[name] == CT]))
    decide("pet_window", plan_uptake(cases, [name for name in kinds if kinds[name] == PET]))
    spacing = decide("spacing", plan_spacing(cases))
    shape = median_shape(cases, spacing)
    roi = decide("roi_size", plan_roi(shape))
    folds = decide("num_folds", _folds(len(cases)))
    whole = all(size >= length for size, length in zip(roi, shape, strict=True))
    crops = decide("crops_per_case", _crops(whole))
    decide("batch_size", _batch(crops, len(cases) - math.ceil(len(cases) / folds)))
    cache = decide("cache_rate", plan_cache(cases, spacing, len(kinds)))
    decide("num_workers", _workers(cache))
    return plan


def plan_spacing(cases: Sequence[CaseSurvey]) -> Decision:
    """Take the median voxel; on a far coarser axis of few voxels the 10th percentile, as nnU-Net.

    Args:
        cases: surveys.

    Returns:
        Spacing in mm.
    """
    spacings = np.array([case.spacing for case in cases])
    sizes = np.median([case.size for case in cases], axis=0)
    target = np.median(spacings, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    least, most = ("x".join(f"{n:.4g}" for n in end(spacings, axis=0)) for end in (np.min, np.max))
    reason = f"all cases have {most} mm" if least == most else f"median of {least} to {most} mm"
    coarse = target[worst] > ANISOTROPY * target[others].max()
    if coarse and ANISOTROPY * sizes[worst] < sizes[others].min():
        target[worst] = max(np.percentile(spacings[:, worst], 10), target[others].max())
        reason += f", but the 10th percentile along axis {worst}, which is over {ANISOTROPY} times "
        reason += "coarser and has few slices (nnU-Net's rule)"
    return Decision([round(float(length), 4) for length in target], reason)


def median_shape(cases: Sequence[CaseSurvey], spacing: Sequence[float]) -> tuple[int, ...]:
    """Measure the median box of the foreground in voxels of a spacing in mm."""
    shapes = [
        [n * was / now for n, was, now in zip(case.size, case.spacing, spacing, strict=True)]
        for case in cases
    ]
    return tuple(max(1, round(float(length))) for length in np.median(shapes, axis=0))


def plan_roi(shape: Sequence[int]) -> Decision:
    """Make a window in the proportions of the median box, of at most `TOKENS` tokens.

    Args:
        shape: the median box in voxels.

    Returns:
        Window in voxels, multiples of `PATCH`.
    """
    tokens = [math.ceil(length / PATCH) for length in shape]
    whole = math.prod(tokens) <= TOKENS
    while math.prod(tokens) > TOKENS:
        ratios = [
            (count * PATCH / length, count) for count, length in zip(tokens, shape, strict=True)
        ]
        tokens[max((axis for axis in range(3) if tokens[axis] > 1), key=ratios.__getitem__)] -= 1
    roi = [PATCH * count for count in tokens]
    box = "x".join(map(str, shape))
    if whole:
        return Decision(roi, f"holds the median box, {box} voxels, in multiples of {PATCH}")
    share = math.prod(min(1.0, size / length) for size, length in zip(roi, shape, strict=True))
    return Decision(
        roi,
        f"{math.prod(tokens)} tokens of {PATCH}^3 voxels, in the proportions of the median box, "
        f"{box} voxels, of which it holds {share:.0%}; the paper's windows have {TOKENS}",
    )


def plan_window(cases: Sequence[CaseSurvey], channels: Sequence[str]) -> Decision:
    """Take the window of CT from the values of labelled voxels, as nnU-Net does.

    Args:
        cases: surveys.
        channels: names of the CT channels.

    Returns:
        Lower and upper end in HU.
    """
    if not channels:
        return Decision([int(end) for end in CT_WINDOW], "no channel is CT")
    low, high = np.percentile(_pooled(cases, channels), PERCENTILES)
    window = [math.floor(low), math.ceil(high)]
    if window[1] - window[0] < 10:
        return Decision(
            [int(end) for end in CT_WINDOW],
            f"labelled voxels have hardly any range, {low:g} to {high:g} HU",
        )
    return Decision(window, "0.5th and 99.5th percentile of labelled voxels, HU")


def plan_uptake(cases: Sequence[CaseSurvey], channels: Sequence[str]) -> Decision:
    """Take the window of PET from 0 to what labelled voxels and the whole image reach.

    Args:
        cases: surveys.
        channels: names of the PET channels.

    Returns:
        Lower and upper end in the files' unit.
    """
    if not channels:
        return Decision([int(end) for end in PET_WINDOW], "no channel is PET")
    high = float(f"{np.percentile(_pooled(cases, channels), PERCENTILES[1]):.3g}")
    if high <= 0:
        return Decision([int(end) for end in PET_WINDOW], "no uptake was found")
    return Decision(
        [0, int(high) if high == int(high) else high],
        "0 to the 99.5th percentile of labelled voxels and as many of all, in the files' unit",
    )


def plan_cache(cases: Sequence[CaseSurvey], spacing: Sequence[float], channels: int) -> Decision:
    """Keep as many prepared cases as half of the memory that is free holds.

    Args:
        cases: surveys.
        spacing: voxel size in mm that images are resampled to.
        channels: number of channels.

    Returns:
        Share of the cases, 0 to 1.
    """
    voxels = sum(
        math.prod(n * was / now for n, was, now in zip(c.size, c.spacing, spacing, strict=True))
        for c in cases
    )
    needed, free = cached_bytes(voxels, channels), available_memory()
    rate = math.floor(100 * min(1.0, free / 2 / needed)) / 100
    return Decision(
        rate,
        f"all cases, prepared, take {needed / 1e9:.2g} GB; {free / 1e9:.2g} GB are free here, and "
        "half of that may be used",
    )


def _pooled(cases: Sequence[CaseSurvey], channels: Sequence[str]) -> np.ndarray:
    return np.concatenate([case.values[name] for case in cases for name in channels])


def _named(cases: Sequence[CaseSurvey], kinds: Mapping[str, str]) -> str:
    """Say how the kinds were found, and which name its values contradict."""
    said = "by the names of the channels"
    for name, kind in kinds.items():
        lowest = min(case.lowest[name] for case in cases)
        if kind == MR and lowest <= CT_AIR:
            said += f"; {name} goes down to {lowest:g}: if it is CT, pass --intensity"
    return said


def _present(cases: Sequence[CaseSurvey], regions: Mapping[str, Sequence[int]]) -> str:
    """Say in how many cases each region is, and how large it is there."""
    said = []
    for name, labels in regions.items():
        volumes = [
            sum(case.labels.get(label, 0) for label in labels) * math.prod(case.spacing) / 1000
            for case in cases
        ]
        found = [volume for volume in volumes if volume]
        size = f", median {np.median(found):.3g} ml" if found else ""
        said.append(f"{name} in {len(found)} of {len(cases)} cases{size}")
    nested = sum(map(len, regions.values())) > len({v for g in regions.values() for v in g})
    rule = "as the data set gives them" if nested else "each label is a region"
    return f"{rule}: {'; '.join(said)}"


def _folds(cases: int) -> Decision:
    folds = min(FOLDS, cases)
    return Decision(folds, "the usual number" if folds == FOLDS else f"there are {cases} cases")


def _crops(whole: bool) -> Decision:
    if whole:
        return Decision(1, "the window holds the median box")
    return Decision(2, "one around a labelled voxel, one anywhere")


def _batch(crops: int, training: int) -> Decision:
    size = max(1, min(CROPS // crops, training)) if crops < CROPS else 1
    return Decision(size, f"{size * crops} crops a step, of {training} training cases")


def _workers(cache: float) -> Decision:
    count = min(4, os.cpu_count() or 1)
    return Decision(count, f"{os.cpu_count()} processors here")
