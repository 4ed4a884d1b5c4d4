"""Which images a plain folder holds: files and DICOM series, put together to cases by name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_ext.images.dicom import holds_dicom
from lora_ext.images.image_file import ENDINGS, case_name, ending
from lora_ext.images.reader import open_image

logger = logging.getLogger(__name__)


@dataclass
class _Found:
    """What was found so far: whole cases, single channels by case, and files of neither kind."""

    modalities: tuple[str, ...]
    whole: dict[str, Path] = field(default_factory=dict)
    split: dict[str, dict[str, Path]] = field(default_factory=dict)
    rest: list[Path] = field(default_factory=list)

    def add_whole(self, case: str, path: Path) -> None:
        _put(self.whole, case, path, "the image")

    def add_channel(self, case: str, modality: str, path: Path) -> None:
        _put(self.split.setdefault(case, {}), modality, path, f"the channel {modality}")


def folder_items(root: Path, modalities: tuple[str, ...]) -> list[dict[str, Any]]:
    """Lists the cases of a folder of images.

    A case is one file with the channels of `modalities` in that order; or one file per channel,
    ``<case>_<modality>`` with any ending of an image, or one DICOM series per channel in the folder
    ``<case>/<modality>`` or ``<case>_<modality>``, in any mix of formats (modality in any upper or
    lower case). For a single modality a case is also a file, or a folder with a DICOM series, of
    any name. Hidden files and folders do not count, nor do folders without DICOM.

    Args:
        root: the folder.
        modalities: names of the channels, in the network's order.

    Returns:
        Case items, unchecked and unsorted.

    Raises:
        ValueError: no image, a missing channel, two files or folders for one channel of a case, or
            an image or DICOM series that belongs to no case.
    """
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    found = _Found(modalities)
    for path in entries:
        if path.is_file() and ending(path):
            _add_file(found, path)
    _add_folders(found, [path for path in entries if path.is_dir()])
    _sort_rest(found)
    if not found.whole and not found.split:
        raise ValueError(
            f"{root}: found no image; allowed are a folder of files that end in "
            f"{', '.join(ENDINGS)}, of folders with DICOM series, or a Decathlon task folder with "
            "a dataset.json"
        )
    return _whole_items(found) + _split_items(root, found)


def _add_file(found: _Found, path: Path) -> None:
    case, modality = _split_name(case_name(path), found.modalities)
    if open_image(str(path)).num_channels > 1:
        found.add_whole(case_name(path), path)
    elif modality is None:
        found.rest.append(path)
    else:
        found.add_channel(case, modality, path)


def _add_folders(found: _Found, folders: Sequence[Path]) -> None:
    others = [folder for folder in folders if not _add_folder(found, folder)]
    for folder in others:
        if len(others) < len(folders) and not any(folder.iterdir()):
            raise ValueError(f"{folder}: found an empty folder beside those of other cases")
        logger.info("%s: ignored, it holds no DICOM series", folder)


def _add_folder(found: _Found, folder: Path) -> bool:
    """Adds the series of a folder; False if there are none."""
    by_name = {modality.lower(): modality for modality in found.modalities}
    series = [
        path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.lower() in by_name
    ]
    case, modality = _split_name(folder.name, found.modalities)
    for path in series:
        found.add_channel(folder.name, by_name[path.name.lower()], path)
    if series:
        return True
    if modality is not None:
        found.add_channel(case, modality, folder)
        return True
    if not holds_dicom(folder):
        return False
    inner = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if inner or len(found.modalities) > 1:
        raise ValueError(
            f"{folder}: found DICOM files in {', '.join(inner) or 'the folder itself'}; allowed is "
            f"a folder per modality in it, named {', '.join(found.modalities)}"
        )
    found.add_channel(folder.name, found.modalities[0], folder)
    return True


def _split_name(stem: str, modalities: tuple[str, ...]) -> tuple[str, str | None]:
    """Case and modality of ``<case>_<modality>``; the longest modality that fits counts."""
    for modality in sorted(modalities, key=len, reverse=True):
        case = stem[: -len(modality) - 1]
        if case and stem.lower().endswith(f"_{modality.lower()}"):
            return case, modality
    return stem, None


def _put(images: dict[str, Path], key: str, path: Path, what: str) -> None:
    if key in images:
        raise ValueError(
            f"{path}: found a second image for {what} of its case, next to {images[key]}"
        )
    images[key] = path


def _sort_rest(found: _Found) -> None:
    """Ignores other files of known cases; the others are cases where there is one modality."""
    known = tuple(f"{case}_" for case in (*found.whole, *found.split))
    names = ", ".join(found.modalities)
    for path in found.rest:
        case = case_name(path)
        if case.startswith(known):
            logger.info("%s: ignored, it is none of %s", path, names)
        elif len(found.modalities) == 1:
            found.add_channel(case, found.modalities[0], path)
        else:
            raise ValueError(
                f"{path}: found a single channel; allowed are files of {len(found.modalities)} "
                f"channels, or <case>_<modality>{ending(path)} with a modality out of {names}"
            )


def _whole_items(found: _Found) -> list[dict[str, Any]]:
    for case in sorted(found.whole.keys() & found.split.keys()):
        raise ValueError(
            f"{found.whole[case]}: found a second image of case {case}, next to "
            f"{next(iter(found.split[case].values()))}; allowed is one"
        )
    return [_item(case, str(path), found) for case, path in found.whole.items()]


def _split_items(root: Path, found: _Found) -> list[dict[str, Any]]:
    items = []
    for case, images in found.split.items():
        for modality in found.modalities:
            if modality not in images:
                raise ValueError(
                    f"{root}: found no {modality} file of case {case}; allowed is "
                    f"{case}_{modality}.nii.gz (or {', '.join(ENDINGS[1:])}), or a DICOM series in "
                    f"the folder {case}/{modality} or {case}_{modality}"
                )
        paths = [str(images[modality]) for modality in found.modalities]
        items.append(_item(case, paths if len(paths) > 1 else paths[0], found))
    return items


def _item(case: str, image: str | list[str], found: _Found) -> dict[str, Any]:
    return {"case": case, "image": image, "channels": list(range(len(found.modalities)))}
