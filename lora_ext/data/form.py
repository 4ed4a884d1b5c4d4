"""The one form that every layout of a data set is read into: cases, channels, labels, regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_ext.data.modalities import find_channels

Item = dict[str, Any]  # a case item, see `lora_ext.data`


@dataclass(frozen=True)
class CasePaths:
    """One case of a data set.

    Attributes:
        name: by which the case is known, and its segmentation called.
        image: absolute path of the image with all channels, or one path per channel.
        label: absolute path of the label map, None for a case without one.
        fold: the fold in which the data set itself lets the case validate, None where it says none.
    """

    name: str
    image: Path | tuple[Path, ...]
    label: Path | None = None
    fold: int | None = None

    @property
    def images(self) -> tuple[Path, ...]:
        """The image's files, one or one per channel."""
        return self.image if isinstance(self.image, tuple) else (self.image,)


@dataclass(frozen=True)
class Task:
    """A data set, however it lies on disk.

    Attributes:
        source: the file that lists the cases, or the folder that holds them; absolute.
        channels: names in the order of the images' channels, or of each case's files.
        labels: name of each label value, background (0) included; empty where nothing names them.
        training: the labelled cases.
        test: the cases without labels.
        regions: the regions that the data set itself defines, name -> label values.
    """

    source: Path
    channels: tuple[str, ...]
    labels: dict[int, str]
    training: tuple[CasePaths, ...]
    test: tuple[CasePaths, ...] = ()
    regions: dict[str, list[int]] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The data set's folder."""
        return self.source if self.source.is_dir() else self.source.parent

    def channel_indices(self, modalities: Sequence[str]) -> list[int]:
        """Find the channels of the named modalities, see `find_channels`."""
        return find_channels(modalities, self.channels, self.source)

    def item(self, case: CasePaths, channels: Sequence[int], labelled: bool = True) -> Item:
        """Make the case item of some channels.

        Args:
            case: one of the task's cases.
            channels: indices of the channels, in the order wanted.
            labelled: whether the item has the label map.

        Returns:
            The case item; of a case with a file per channel it lists those asked for alone.
        """
        label = case.label if labelled else None
        if isinstance(case.image, tuple):
            files = [str(case.image[channel]) for channel in channels]
            return case_item(case.name, files, range(len(files)), label)
        return case_item(case.name, case.image, channels, label)


def case_item(
    name: str,
    image: Path | list[str],
    channels: Sequence[int],
    label: Path | None = None,
) -> Item:
    """Make the case item of a MONAI dataset.

    Args:
        name: the case.
        image: path of the image, or one path per channel.
        channels: which channels of the loaded image to keep.
        label: path of the label map, None without one.

    Returns:
        The case item, see `lora_ext.data`.
    """
    paths = image if isinstance(image, list) else str(image)
    labelled = {} if label is None else {"label": str(label)}
    return {"case": name, "image": paths, **labelled, "channels": list(channels)}
