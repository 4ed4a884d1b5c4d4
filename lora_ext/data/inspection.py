"""What a data set holds, each file read once: sizes, intensities, volumes, faults, outliers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from lora_ext.data.checks import THREADS, check_channels, check_finite, check_labels
from lora_ext.data.form import CasePaths, Task
from lora_ext.images.image_file import RESAMPLE, ImageFile, check_same_grid, two_places
from lora_ext.images.limits import voxel_size
from lora_ext.images.reader import open_image
from lora_ext.images.resampling import on_image

PERCENTILES = (0.5, 50.0, 99.5)
FAR = 5.0  # robust standard deviations from the median
FEWEST = 5  # cases; of fewer none is called an outlier

Picture = Callable[[np.ndarray, np.ndarray | None, np.ndarray], Any]


@dataclass(frozen=True)
class Intensities:
    """The values of a channel.

    Attributes:
        low, median, high: `PERCENTILES` of the voxels that are not 0.
        zero: share of voxels that are 0.
    """

    low: float
    median: float
    high: float
    zero: float


@dataclass
class CaseFacts:
    """What one case's files hold.

    Attributes:
        case: its name.
        shape: voxels (H, W, D); empty where the first file cannot be read.
        spacing: voxel size in mm.
        axes: where the voxels' axes run to, such as RAS.
        channels: intensities by channel name.
        labels: volume in ml by label value; None for a case without a label map.
        problems: what is wrong, a sentence each.
        remarks: what is unusual, in words.
        picture: what the `Picture` function made of it.
    """

    case: str
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    axes: str = ""
    channels: dict[str, Intensities] = field(default_factory=dict)
    labels: dict[int, float] | None = None
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    picture: Any = None


def inspect_cases(task: Task, picture: Picture | None = None, channel: int = 0) -> list[CaseFacts]:
    """Read every file of a data set once, several at a time, and note all that is wrong.

    Args:
        task: the data set.
        picture: makes something of one channel (H, W, D), the label map (H, W, D) on its grid or
            None, and the affine (4, 4); it is called while the case is in memory.
        channel: index of that channel.

    Returns:
        The cases, sorted by name, with the outliers among them remarked.
    """
    cases = sorted((*task.training, *task.test), key=lambda case: case.name)
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda case: _inspect(task, case, picture, channel), cases)
        facts = list(tqdm(found, "reading cases", len(cases), unit="case", disable=None))
    remark_outliers(facts, task.labels)
    return facts


def remark_outliers(cases: Sequence[CaseFacts], label_names: Mapping[int, str]) -> None:
    """Remark which cases are far from the others: more than `FAR` robust standard deviations.

    The deviation is 1.4826 times the median distance from the median, and at least a fiftieth of
    the median, so that equal values make no outlier of a rounding. Volumes are compared by their
    logarithms.

    Args:
        cases: the cases; their `remarks` are added to.
        label_names: names by label value.
    """
    measures = [(case, dict(_measures(case, label_names))) for case in cases if case.shape]
    if len(measures) < FEWEST:
        return
    for name in dict.fromkeys(name for _, own in measures for name in own):
        known = [(case, own[name]) for case, own in measures if name in own]
        values = np.array([value for _, value in known], float)
        volume = name.startswith("volume")
        present = values > 0 if volume else np.ones(len(values), bool)
        if volume and not present.all() and present.mean() > 0.5:
            for case, value in known:
                case.remarks += [] if value else [f"{name}: none, and most cases have it"]
        scaled = np.log(np.where(present, values, 1.0)) if volume else values
        if present.sum() < FEWEST:
            continue
        middle = np.median(scaled[present])
        spread = 1.4826 * np.median(np.abs(scaled[present] - middle))
        least = 0.1 if volume else 0.02 * abs(middle)
        far = np.abs(scaled - middle) / max(spread, least, 1e-9)
        for (case, value), distance, there in zip(known, far, present, strict=True):
            if there and distance > FAR:
                usual = float(np.median(values[present]))
                case.remarks.append(
                    f"{name}: {value:.4g}, the median is {usual:.4g} ({distance:.1f} deviations)"
                )


def _measures(case: CaseFacts, label_names: Mapping[int, str]) -> Iterator[tuple[str, float]]:
    for axis, (size, length) in enumerate(zip(case.shape, case.spacing, strict=True)):
        yield f"size of axis {axis} (voxels)", size
        yield f"spacing of axis {axis} (mm)", length
    for name, values in case.channels.items():
        yield f"{name} median", values.median
        yield f"{name} {PERCENTILES[2]:g} percentile", values.high
    for value, volume in (case.labels or {}).items():
        yield f"volume of label {label_text(value, label_names)} (ml)", volume


def label_text(value: int, names: Mapping[int, str]) -> str:
    """Write a label value with its name, where it has one."""
    return f"{value} {names[value]}" if value in names else str(value)


def _inspect(task: Task, case: CasePaths, picture: Picture | None, channel: int) -> CaseFacts:
    facts = CaseFacts(case.name)
    several = isinstance(case.image, tuple)
    held = [(name,) for name in task.channels] if several else [task.channels]
    first, shown = None, None
    for path, names in zip(case.images, held, strict=True):
        image, voxels = _read(facts, os.fspath(path), names)
        if image is None or voxels is None:
            continue
        _note(facts, check_finite, image, voxels, names)
        if first is None:
            first = image
            facts.shape, facts.spacing = image.shape[:3], voxel_size(image.affine)
            facts.axes = "".join(nib.aff2axcodes(image.affine))
        _note(facts, check_same_grid, first, image, RESAMPLE)
        for name, values in zip(names, _channels_first(voxels), strict=False):
            facts.channels[name] = _intensities(values)
            if name == task.channels[channel]:
                shown = (values, image)
    label = _inspect_label(task, case, facts, first)
    if picture is not None and shown is not None:
        values, image = shown
        outlined = label if label is not None and label.shape == values.shape else None
        facts.picture = picture(np.nan_to_num(values), outlined, image.affine)
    return facts


def _inspect_label(
    task: Task, case: CasePaths, facts: CaseFacts, image: ImageFile | None
) -> np.ndarray | None:
    """Note a label map's faults and volumes, and return it on the grid of the image."""
    if case.label is None:
        return None
    label, voxels = _read(facts, os.fspath(case.label), ("label",))
    if label is None or voxels is None:
        return None
    _note(facts, check_labels, label, voxels, sorted(task.labels) or None)
    values, counts = np.unique(voxels, return_counts=True)
    ml = abs(float(np.linalg.det(label.affine[:3, :3]))) / 1000
    known = {value: 0.0 for value in task.labels if value}
    found = {int(v): n * ml for v, n in zip(values, counts, strict=True) if v and v == round(v)}
    facts.labels = known | found
    if not facts.labels or not any(found.values()):
        facts.remarks.append("the label map is empty")
    if image is None:
        return None
    if label.segments is None:
        _note(facts, check_same_grid, image, label)
    return on_image(label, image, voxels)


def _read(
    facts: CaseFacts, path: str, names: Sequence[str]
) -> tuple[ImageFile | None, np.ndarray | None]:
    """Open and read a file; None, and a problem noted, where that is not possible."""
    try:
        image = open_image(path)
        check_channels(image, names)
        if remark := two_places(image):
            facts.remarks.append(remark)
        return image, image.read()
    except ValueError as error:
        facts.problems.append(str(error))
        return None, None


def _note(facts: CaseFacts, check: Callable[..., Any], *arguments: Any) -> None:
    try:
        check(*arguments)
    except ValueError as error:
        facts.problems.append(str(error))


def _channels_first(voxels: np.ndarray) -> np.ndarray:
    return voxels[None] if voxels.ndim == 3 else np.moveaxis(voxels, 3, 0)


def _intensities(values: np.ndarray) -> Intensities:
    finite = values[np.isfinite(values)]
    marked = finite[finite != 0]
    low, median, high = np.percentile(marked, PERCENTILES) if marked.size else (0.0, 0.0, 0.0)
    zero = 1 - marked.size / max(finite.size, 1)
    return Intensities(float(low), float(median), float(high), zero)
