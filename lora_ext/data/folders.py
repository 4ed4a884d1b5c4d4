"""Which images a plain folder holds: files and DICOM series, put together to cases by name."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from lora_ext.data.task import Item, case_item
from lora_ext.images.dicom import holds_dicom
from lora_ext.images.image_file import ENDINGS, case_name, ending
from lora_ext.images.listing import entries
from lora_ext.images.reader import open_image

logger = logging.getLogger(__name__)

_ALL = ""  # in the place of a modality: an image with all channels
_Found = dict[str, dict[str, Path]]  # by case, by modality


def folder_items(root: Path, modalities: tuple[str, ...]) -> list[Item]:
    """List the cases of a folder of images.

    A case is one file with the channels of `modalities` in that order; or one file per channel,
    ``<case>_<modality>`` with any ending of an image, or one DICOM series per channel in the folder
    ``<case>/<modality>`` or ``<case>_<modality>``, in any mix of formats (modality in upper or
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
    found: _Found = defaultdict(dict)
    files = [path for path in entries(root) if path.is_file() and ending(path)]
    others = [path for path in files if not _add_file(found, path, modalities)]
    _add_folders(found, [path for path in entries(root) if path.is_dir()], modalities)
    _add_others(found, others, modalities)
    if not found:
        raise ValueError(
            f"{root}: found no image; expected a folder of files that end in {', '.join(ENDINGS)}, "
            "of folders with DICOM series, or a Decathlon task folder with a dataset.json"
        )
    channels = range(len(modalities))
    return [
        case_item(case, _case_images(root, case, images, modalities), channels)
        for case, images in found.items()
    ]


def _add_file(found: _Found, path: Path, modalities: tuple[str, ...]) -> bool:
    """Add a file with all channels or with a modality in its name; return False for any other."""
    case, modality = _split_name(case_name(path), modalities)
    if open_image(str(path)).num_channels > 1:
        _add(found, case_name(path), _ALL, path)
    elif modality:
        _add(found, case, modality, path)
    else:
        return False
    return True


def _add_folders(found: _Found, folders: list[Path], modalities: tuple[str, ...]) -> None:
    others = [folder for folder in folders if not _add_folder(found, folder, modalities)]
    for folder in others:
        if len(others) < len(folders) and not entries(folder):
            raise ValueError(f"{folder}: found an empty folder beside those of other cases")
        logger.info("%s: ignored, it holds no DICOM series", folder)


def _add_folder(found: _Found, folder: Path, modalities: tuple[str, ...]) -> bool:
    """Add the series of a folder; return False if there are none."""
    by_name = {modality.lower(): modality for modality in modalities}
    inner = [path for path in entries(folder) if path.is_dir()]
    series = [path for path in inner if path.name.lower() in by_name]
    for path in series:
        _add(found, folder.name, by_name[path.name.lower()], path)
    case, modality = _split_name(folder.name, modalities)
    if series:
        return True
    if not modality:
        if not holds_dicom(folder):
            return False
        if inner or len(modalities) > 1:
            names = ", ".join(path.name for path in inner) or "the folder itself"
            raise ValueError(
                f"{folder}: expected a folder per modality in it, named {', '.join(modalities)}, "
                f"got DICOM files in {names}"
            )
    _add(found, case, modality or modalities[0], folder)
    return True


def _add_others(found: _Found, files: list[Path], modalities: tuple[str, ...]) -> None:
    """Add the files of any name where there is one modality, but ignore those of known cases."""
    known, names = tuple(f"{case}_" for case in found), ", ".join(modalities)
    for path in files:
        if case_name(path).startswith(known):
            logger.info("%s: ignored, it is none of %s", path, names)
        elif len(modalities) == 1:
            _add(found, case_name(path), modalities[0], path)
        else:
            raise ValueError(
                f"{path}: expected {len(modalities)} channels, or <case>_<modality>{ending(path)} "
                f"with a modality out of {names}, got a single channel"
            )


def _split_name(stem: str, modalities: tuple[str, ...]) -> tuple[str, str]:
    """Split ``<case>_<modality>`` by the longest modality that fits; without one it is empty."""
    for modality in sorted(modalities, key=len, reverse=True):
        case = stem[: -len(modality) - 1]
        if case and stem.lower().endswith(f"_{modality.lower()}"):
            return case, modality
    return stem, ""


def _add(found: _Found, case: str, modality: str, path: Path) -> None:
    images = found[case]
    for held, other in images.items():
        if modality == held or _ALL in (modality, held):
            what = f"one image for the channel {modality}" if modality else "one image"
            raise ValueError(
                f"{path}: expected {what} of case {case}, got a second next to {other}"
            )
    images[modality] = path


def _case_images(
    root: Path, case: str, images: dict[str, Path], modalities: tuple[str, ...]
) -> Path | list[str]:
    if _ALL in images:
        return images[_ALL]
    for modality in modalities:
        if modality not in images:
            raise ValueError(
                f"{root}: found no {modality} file of case {case}; expected "
                f"{case}_{modality}.nii.gz (or {', '.join(ENDINGS[1:])}), or a DICOM series in "
                f"the folder {case}/{modality} or {case}_{modality}"
            )
    paths = [str(images[modality]) for modality in modalities]
    return paths if len(paths) > 1 else images[modalities[0]]
