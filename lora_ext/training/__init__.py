"""Training: the loss and the handlers that a bundle's ``train.json`` names."""

from lora_ext.training.checkpoints import BestModel, LastCheckpoint
from lora_ext.training.log import OverlayPanels, TrainingLog
from lora_ext.training.loss import RegionDiceCELoss
from lora_ext.training.rates import param_groups
from lora_ext.training.starting import LoadModel, StartTraining, training_record
from lora_ext.training.tracking import RunRecord, check_tracking

__all__ = [
    "BestModel",
    "LastCheckpoint",
    "LoadModel",
    "OverlayPanels",
    "RegionDiceCELoss",
    "RunRecord",
    "StartTraining",
    "TrainingLog",
    "check_tracking",
    "param_groups",
    "training_record",
]
