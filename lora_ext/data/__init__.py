"""Medical Segmentation Decathlon tasks as MONAI data: channels, folds, checks and regions.

A *case item* is the dict that goes into a MONAI dataset: ``case`` (name), ``image`` (one path, or
one path per channel), ``label`` (path, absent at inference) and ``channels`` (which channels of the
loaded file to keep, in the order of the modalities asked for).
"""

from lora_ext.data.cases import fold_cases, inference_cases
from lora_ext.data.channels import SelectChannelsd
from lora_ext.data.checks import check_cases
from lora_ext.data.folds import split_fold
from lora_ext.data.foreground import is_foreground
from lora_ext.data.intensity import NormalizeVolumed
from lora_ext.data.reader import VolumeReader
from lora_ext.data.regions import (
    LabelsToRegionsd,
    RegionsToLabelsd,
    check_regions,
    labels_to_regions,
    regions_to_labels,
)
from lora_ext.data.start import announce_cases, ensure_phantoms
from lora_ext.data.task import CasePaths, MSDTask, read_task
from lora_ext.data.volumes import all_volumes, announce_volumes, fold_volumes
from lora_ext.data.writer import segmentation_writer

__all__ = [
    "CasePaths",
    "LabelsToRegionsd",
    "MSDTask",
    "NormalizeVolumed",
    "RegionsToLabelsd",
    "SelectChannelsd",
    "VolumeReader",
    "all_volumes",
    "announce_cases",
    "announce_volumes",
    "check_cases",
    "check_regions",
    "ensure_phantoms",
    "fold_cases",
    "fold_volumes",
    "inference_cases",
    "is_foreground",
    "labels_to_regions",
    "read_task",
    "regions_to_labels",
    "segmentation_writer",
    "split_fold",
]
