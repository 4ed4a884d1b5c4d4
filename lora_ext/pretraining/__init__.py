"""Pre-training of the shared single-channel encoder: a masked auto-encoder (paper section 2.2)."""

from lora_ext.pretraining.autoencoder import VolumeAutoEncoder, VolumeEncoder
from lora_ext.pretraining.handlers import (
    BestEncoder,
    PretrainingLog,
    ReconstructionPanels,
    VolumeReport,
    volume_as_target,
)
from lora_ext.pretraining.loss import MaskedPatchLoss
from lora_ext.pretraining.metrics import FixedMasks, held_out_metrics

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
