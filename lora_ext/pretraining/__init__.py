"""Pre-training of the shared single-channel encoder: a masked auto-encoder (paper section 2.2)."""

from lora_ext.pretraining.autoencoder import VolumeAutoEncoder, VolumeEncoder
from lora_ext.pretraining.crops import RandContentCropd
from lora_ext.pretraining.handlers import (
    BestEncoder,
    PretrainingLog,
    ReconstructionPanels,
    VolumeReport,
    volume_as_target,
)
from lora_ext.pretraining.loss import MaskedPatchLoss
from lora_ext.pretraining.metrics import FixedMasks, held_out_metrics
from lora_ext.pretraining.rates import warm_up

__all__ = [
    "BestEncoder",
    "FixedMasks",
    "MaskedPatchLoss",
    "PretrainingLog",
    "RandContentCropd",
    "ReconstructionPanels",
    "VolumeAutoEncoder",
    "VolumeEncoder",
    "VolumeReport",
    "held_out_metrics",
    "volume_as_target",
    "warm_up",
]
