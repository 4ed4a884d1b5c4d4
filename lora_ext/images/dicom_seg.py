"""Segmentations as DICOM SEG, beside the DICOM series that they are of, through highdicom."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from monai.config import PathLike
from monai.data import ImageWriter
from monai.data.utils import orientation_ras_lps
from monai.utils import MetaKeys, convert_to_numpy

import lora_ext
from lora_ext.files import whole_file
from lora_ext.images.dicom import series_files

DICOM_SEG = ".dcm"
SERIES = "dicom_series"  # in the meta data: the folder of the series that an image was read from
_ABNORMAL, _ANATOMY = "MorphologicallyAbnormalStructure", "AnatomicalStructure"
# Words in a label's name, the first that fits; scheme and keyword of its code in pydicom's
# dictionaries, and keyword of its category.
_CODES = (
    (r"non.?enhanc", "NCIt", "NonEnhancingLesion", _ABNORMAL),
    (r"enhanc|^et$", "NCIt", "EnhancingLesion", _ABNORMAL),
    (r"o?edema", "SCT", "Edema", _ABNORMAL),
    (r"necro", "SCT", "Necrosis", _ABNORMAL),
    (r"tumou?r|neoplasm|cancer|^[wt]t$|^tc$|^gtv", "SCT", "Neoplasm", _ABNORMAL),
    (r"lesion", "SCT", "Lesion", _ABNORMAL),
    (r"peripheral.?zone|^pz$", "SCT", "PeripheralZoneOfTheProstate", _ANATOMY),
    (r"transition.?zone|^tz$", "SCT", "TransitionZoneOfTheProstate", _ANATOMY),
    (r"prostate", "SCT", "Prostate", _ANATOMY),
    (r"", "SCT", "Tissue", "Tissue"),
)
_NEEDED = ("FrameOfReferenceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def check_dicom_output(cases: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what cannot become DICOM SEG, before work starts.

    Args:
        cases: items with ``case`` and ``image``, a path or one per channel.

    Raises:
        ValueError: without highdicom, or a case whose first channel is no DICOM series, or one that
            lacks what a segmentation must refer to.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise ValueError(
            "--output_ext .dcm: found no package highdicom; install it (pip install highdicom), or "
            "choose another format"
        )
    for item in cases:
        image = item["image"]
        first = os.fspath(image if isinstance(image, (str, os.PathLike)) else image[0])
        if not os.path.isdir(first):
            raise ValueError(
                f"{first}: expected the folder of a DICOM series to write DICOM SEG beside it, got "
                "a file; choose another --output_ext"
            )
        header = _headers(first)[0]
        lacking = [name for name in _NEEDED if not header.get(name)]
        if lacking:
            raise ValueError(
                f"{first}: expected {', '.join(lacking)} in its files, to which a segmentation "
                "refers, got none; choose another --output_ext"
            )


class DicomSegWriter(ImageWriter):
    """Write a label map as binary DICOM SEG, a segment per label, numbered 1, 2, ... in order.

    Attributes:
        segments: name of each label.
    """

    segments: ClassVar[Mapping[int, str]] = {}
    data_obj: Any
    affine: np.ndarray
    series: str

    def set_data_array(self, data_array: Any, **kwargs: Any) -> None:
        """Take the labels, (1, H, W, D)."""
        self.data_obj = convert_to_numpy(data_array)[0]

    def set_metadata(self, meta_dict: Mapping[str, Any] | None = None, **options: Any) -> None:
        """Take the place in the patient, and the folder of the source series."""
        meta = meta_dict or {}
        self.affine = convert_to_numpy(meta[MetaKeys.AFFINE]).astype(np.float64)
        self.series = str(meta[SERIES])

    def write(self, filename: PathLike, verbose: bool = False, **kwargs: Any) -> None:
        """Write the file, whole or not at all."""
        import highdicom as hd

        source = _headers(self.series)
        for header in source:
            if not header.get("SliceThickness"):  # may be empty; highdicom asks for it all the same
                header.SliceThickness = round(float(np.linalg.norm(self.affine[:3, 2])), 6)
        numbered = np.zeros(self.data_obj.shape, np.uint8)
        for number, value in enumerate(sorted(self.segments), 1):
            numbered[self.data_obj == value] = number
        volume = hd.Volume(  # axes (slice, row, column)
            np.ascontiguousarray(numbered.T),
            orientation_ras_lps(self.affine)[:, [2, 1, 0, 3]],
            "PATIENT",
            frame_of_reference_uid=source[0].FrameOfReferenceUID,
        )
        segmentation = hd.seg.Segmentation(
            source_images=source,
            pixel_array=volume,
            segmentation_type="BINARY",
            segment_descriptions=self._descriptions(),
            series_instance_uid=hd.UID(),
            series_number=int(source[0].get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="lora_ext",
            manufacturer_model_name="lora_ext",
            software_versions=lora_ext.__version__,
            device_serial_number="0",
        )
        with whole_file(filename) as draft:
            segmentation.save_as(draft)

    def _descriptions(self) -> list[Any]:
        import highdicom as hd
        from pydicom.sr.codedict import codes

        algorithm = hd.AlgorithmIdentificationSequence(
            name="lora_ext",
            version=lora_ext.__version__,
            family=codes.DCM.ArtificialIntelligence,
        )
        return [
            hd.seg.SegmentDescription(
                number, self.segments[value], *_coded(self.segments[value]), "AUTOMATIC", algorithm
            )
            for number, value in enumerate(sorted(self.segments), 1)
        ]


def _coded(name: str) -> tuple[Any, Any]:
    """The codes of a label's category and type."""
    from pydicom.sr.codedict import codes

    fits = (rest for words, *rest in _CODES if re.search(words, name, re.IGNORECASE))
    scheme, kind, category = next(fits)
    return getattr(codes.SCT, category), getattr(getattr(codes, scheme), kind)


def _headers(folder: str) -> list[Any]:
    from pydicom import dcmread

    return [dcmread(path, stop_before_pixels=True) for path in series_files(folder)]
