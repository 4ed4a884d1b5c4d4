"""Pre-training of the shared single-channel encoder: a masked auto-encoder (paper section 2.2)."""

from lora_ext.pretraining.autoencoder import VolumeAutoEncoder
from lora_ext.pretraining.batch import volume_as_target
from lora_ext.pretraining.best import BestEncoder
from lora_ext.pretraining.log import PretrainingLog
from lora_ext.pretraining.loss import MaskedPatchLoss
from lora_ext.pretraining.metrics import FixedMasks, held_out_metrics
from lora_ext.pretraining.panels import ReconstructionPanels
from lora_ext.pretraining.report import VolumeReport
from lora_ext.pretraining.volume_encoder import VolumeEncoder

__all__ = [
    "BestEncoder",
    "FixedMasks",
    "MaskedPatchLoss",
    "PretrainingLog",
    "ReconstructionPanels",
    "VolumeAutoEncoder",
    "VolumeEncoder",
    "VolumeReport",
    "held_out_metrics",
    "volume_as_target",
]
