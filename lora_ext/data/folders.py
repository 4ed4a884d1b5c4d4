"""Folders of images without a list: files and DICOM series, put together to cases by name."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lora_ext.data.brats import challenge_regions
from lora_ext.data.form import CasePaths, Task
from lora_ext.data.modalities import aliases, check_names, every_alias, split_name, tell_names
from lora_ext.images.dicom import holds_dicom
from lora_ext.images.image_file import ENDINGS, case_name, ending
from lora_ext.images.listing import entries, listed
from lora_ext.images.reader import open_image

logger = logging.getLogger(__name__)

LABEL_NAMES = ("seg", "label", "labels", "mask")  # end the name of a case's label map
_ALL = ""  # in the place of a modality: an image with all channels


def read_folder(root: Path, modalities: Sequence[str] | None = None, labelled: bool = True) -> Task:
    """Read a folder of images, or of folders of cases, as BraTS has them.

    A case is one file with the channels of `modalities` in that order; or one file per channel,
    ``<case>_<modality>`` or ``<case>-<modality>`` with any ending of an image, in the folder itself
    or in one of its own (then ``<modality>`` alone will do); or one DICOM series per channel in the
    folder ``<case>/<modality>`` or ``<case>_<modality>``; in any mix of formats. Modalities are in
    upper or lower case, or called as other data sets call them (`SYNONYMS`). For a single modality
    a case is also a file, or a folder with a DICOM series, of any name. The label map is
    ``<case>_seg`` (or label, labels, mask) beside the image. Hidden files and folders do not
    count, nor do folders without images of a modality.

    Args:
        root: the folder.
        modalities: names of the channels, in the network's order; None for all that are known and
            found in names of files.
        labelled: whether label maps are looked for; without, every case is a test case.

    Returns:
        The task, its labels unnamed.

    Raises:
        ValueError: no image, a missing channel, two files or folders
            for one channel of a case, or an image, DICOM series or label map of no case.
    """
    asked = _recognised(root) if modalities is None else check_names(modalities)
    found = _Folder(root, asked)
    found.add_entries()
    tell_names(root, sorted(found.called))
    cases = sorted(found.cases(), key=lambda case: case.name)
    if not labelled:
        for path in found.labels.values():
            logger.info("%s: ignored, a label map", path)
        return Task(root, asked, {}, (), tuple(CasePaths(c.name, c.image) for c in cases))
    training = tuple(case for case in cases if case.label)
    others = [case.name for case in cases if not case.label]
    alone = sorted(found.labels.keys() - found.images.keys())
    if alone:
        raise ValueError(
            f"{root}: expected a label map <case>_{LABEL_NAMES[0]} beside each image, got "
            f"{found.labels[alone[0]]} without an image of case {alone[0]}"
        )
    if others and training:
        logger.warning("%d cases have no label map: %s", len(others), listed(others))
    return Task(
        *(root, asked, {}, training, tuple(case for case in cases if not case.label)),
        regions=challenge_regions([case.name for case in training]),
    )


class _Folder:
    """The images and label maps that are found, by case."""

    def __init__(self, root: Path, modalities: tuple[str, ...]) -> None:
        self.root = root
        self.modalities = modalities
        self.names = aliases(modalities)
        self.images: dict[str, dict[str, Path]] = defaultdict(dict)
        self.labels: dict[str, Path] = {}
        self.called: set[tuple[str, str]] = set()  # modalities, and their names here
        self.exact: set[Path] = set()  # images that have the very name of their modality

    def add_entries(self) -> None:
        """Add what lies in the folder, and in the folders in it."""
        files = [path for path in entries(self.root) if path.is_file() and ending(path)]
        others = [path for path in files if not self._add_file(path)]
        folders = [path for path in entries(self.root) if path.is_dir()]
        ignored = [folder for folder in folders if not self._add_folder(folder)]
        for folder in ignored:
            if len(ignored) < len(folders) and not entries(folder):
                raise ValueError(f"{folder}: found an empty folder beside those of other cases")
            logger.info("%s: ignored, it holds no DICOM series and no file of a modality", folder)
        self._add_others(others)
        if not self.images:
            raise ValueError(
                f"{self.root}: found no image; expected a folder of files that end in "
                f"{', '.join(ENDINGS)}, of folders of cases or with DICOM series, or one with a "
                "dataset.json or datalist.json"
            )

    def cases(self) -> list[CasePaths]:
        """List the cases, each with all its channels."""
        return [
            CasePaths(case, self._image(case, images), self.labels.get(case))
            for case, images in self.images.items()
        ]

    def _add_file(self, path: Path) -> bool:
        """Add a label map, a file with all channels or one of a modality; False for any other."""
        stem = case_name(path)
        case, label = split_name(stem, LABEL_NAMES)
        if label:
            self._add_label(case, path)
            return True
        case, modality = split_name(stem, self.names)
        if open_image(str(path)).num_channels > 1:
            self._add(stem, _ALL, path)
        elif modality:
            self._add(case, self.names[modality], path, modality)
        else:
            return False
        return True

    def _add_folder(self, folder: Path) -> bool:
        """Add the files and series of a case's folder; False if there are none."""
        held = entries(folder)
        inner = [path for path in held if path.is_dir()]
        series = [path for path in inner if path.name.lower() in self.names]
        for path in series:
            self._add(folder.name, self.names[path.name.lower()], path, path.name.lower())
        files = self._add_case_files(folder, [p for p in held if p.is_file() and ending(p)])
        if series or files:
            return True
        case, modality = split_name(folder.name, self.names)
        if not modality:
            if not holds_dicom(folder):
                return False
            if inner or len(self.modalities) > 1:
                names = ", ".join(path.name for path in inner) or "the folder itself"
                raise ValueError(
                    f"{folder}: expected a folder per modality in it, named "
                    f"{', '.join(self.modalities)}, got DICOM files in {names}"
                )
        self._add(case, self.names[modality] if modality else self.modalities[0], folder, modality)
        return True

    def _add_case_files(self, folder: Path, files: list[Path]) -> bool:
        """Add the files of a case's folder that are named after a modality or a label map."""
        named = {path: _last_name(case_name(path), (*LABEL_NAMES, *self.names)) for path in files}
        images = {path: name for path, name in named.items() if name in self.names}
        for path, name in named.items():
            if name in self.names:
                self._add(folder.name, self.names[name], path, name)
            elif name and images:
                self._add_label(folder.name, path)
            elif images:
                logger.info("%s: ignored, it is none of %s", path, ", ".join(self.modalities))
        return bool(images)

    def _add_others(self, files: list[Path]) -> None:
        """Add files of any name where there is one modality, but ignore those of known cases."""
        known, names = tuple(f"{case}_" for case in self.images), ", ".join(self.modalities)
        for path in files:
            if case_name(path).startswith(known):
                logger.info("%s: ignored, it is none of %s", path, names)
            elif len(self.modalities) == 1:
                self._add(case_name(path), self.modalities[0], path)
            else:
                raise ValueError(
                    f"{path}: expected {len(self.modalities)} channels, or "
                    f"<case>_<modality>{ending(path)} with a modality out of {names}, got a single "
                    "channel"
                )

    def _add(self, case: str, modality: str, path: Path, name: str = "") -> None:
        """Add an image; one with the modality's very name counts before one with a synonym."""
        images, exact = self.images[case], name == modality.lower()
        rival = images.get(modality)
        if exact:
            self.exact.add(path)
        if rival and name and exact != (rival in self.exact):
            kept, other = (path, rival) if exact else (rival, path)
            images[modality] = kept
            logger.info("%s: ignored, %s has the name %s", other, kept, modality)
            return
        clash = rival or images.get(_ALL)
        if not modality and images:
            clash = next(iter(images.values()))
        if clash:
            what = f"one image for the channel {modality}" if modality else "one image"
            raise ValueError(
                f"{path}: expected {what} of case {case}, got a second next to {clash}"
            )
        images[modality] = path
        self.called |= {(modality, name)} if name else set()

    def _add_label(self, case: str, path: Path) -> None:
        other = self.labels.setdefault(case, path)
        if other != path:
            raise ValueError(
                f"{path}: expected one label map of case {case}, got a second next to {other}"
            )

    def _image(self, case: str, images: dict[str, Path]) -> Path | tuple[Path, ...]:
        if _ALL in images:
            return images[_ALL]
        for modality in self.modalities:
            if modality not in images:
                raise ValueError(
                    f"{self.root}: found no {modality} file of case {case}; expected "
                    f"{case}_{modality}.nii.gz (or {', '.join(ENDINGS[1:])}), or a DICOM series in "
                    f"the folder {case}/{modality} or {case}_{modality}"
                )
        paths = tuple(images[modality] for modality in self.modalities)
        return paths if len(paths) > 1 else paths[0]


def _last_name(stem: str, names: Sequence[str] | dict[str, str]) -> str:
    """Return the modality or label at the end of a file's name, or that is all of it."""
    return stem.lower() if stem.lower() in names else split_name(stem, names)[1]


def _recognised(root: Path) -> tuple[str, ...]:
    """Find the modalities that the files of a folder, and of the folders in it, are named after."""
    names, found = every_alias(), {}
    places = [root, *(path for path in entries(root) if path.is_dir())]
    for path in (path for place in places for path in entries(place) if ending(path)):
        name = _last_name(case_name(path), names)
        if name:
            found[names[name]] = name
    if not found:
        raise ValueError(
            f"{root}: found no file that is named after a known modality, such as "
            "<case>_flair.nii.gz; name the channels by --modalities"
        )
    return tuple(
        name for first, name in sorted(found.items(), key=lambda pair: list(names).index(pair[0]))
    )
