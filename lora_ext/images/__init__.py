"""Images in and out, their geometry in one place: NIfTI, NRRD, MetaImage and DICOM."""

from lora_ext.images.image_file import ImageFile, case_name
from lora_ext.images.outputs import pending_cases
from lora_ext.images.reader import VolumeReader, open_image
from lora_ext.images.writer import ProbabilityWriter, segmentation_writer

__all__ = [
    "ImageFile",
    "ProbabilityWriter",
    "VolumeReader",
    "case_name",
    "open_image",
    "pending_cases",
    "segmentation_writer",
]
