"""Data sets of any layout as MONAI data: channels, folds, checks and regions.

A *case item* is the dict that goes into a MONAI dataset: ``case`` (name), ``image`` (one path, or
one path per channel), ``label`` (path, absent at inference) and ``channels`` (which channels of the
loaded file to keep, in the order of the modalities asked for). A volume to pre-train on has the
name of its channel at ``modality``, where the channel has a name.
"""

from lora_ext.data.cases import fold_cases, inference_cases
from lora_ext.data.checks import check_cases
from lora_ext.data.cleaning import CleanRegionsd
from lora_ext.data.folds import split_fold
from lora_ext.data.form import CasePaths, Task
from lora_ext.data.intensity import (
    Foreground,
    NormalizeModalitiesd,
    channel_kinds,
    recorded_kinds,
)
from lora_ext.data.regions import (
    LabelsToRegionsd,
    RegionsToLabelsd,
    check_regions,
    labels_to_regions,
    regions_to_labels,
    segment_names,
)
from lora_ext.data.task import read_task
from lora_ext.data.transforms import NameAfterCased, PlaceLabeld, SelectChannelsd
from lora_ext.data.volumes import all_volumes, count_volumes, fold_volumes

__all__ = [
    "CasePaths",
    "CleanRegionsd",
    "Foreground",
    "LabelsToRegionsd",
    "NameAfterCased",
    "NormalizeModalitiesd",
    "PlaceLabeld",
    "RegionsToLabelsd",
    "SelectChannelsd",
    "Task",
    "all_volumes",
    "channel_kinds",
    "check_cases",
    "check_regions",
    "count_volumes",
    "fold_cases",
    "fold_volumes",
    "inference_cases",
    "labels_to_regions",
    "read_task",
    "recorded_kinds",
    "regions_to_labels",
    "segment_names",
    "split_fold",
]
