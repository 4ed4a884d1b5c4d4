"""Training: the loss and the handlers that a bundle's ``train.json`` names."""

from lora_ext.training.best import BestModel
from lora_ext.training.compilation import compilation
from lora_ext.training.loss import RegionDiceCELoss
from lora_ext.training.memory import keep_freed_memory
from lora_ext.training.panels import OverlayPanels
from lora_ext.training.precision import CPUPrecisionInferer
from lora_ext.training.progress import TrainingLog
from lora_ext.training.rates import parameter_groups
from lora_ext.training.resume import LastCheckpoint
from lora_ext.training.run_record import RunRecord
from lora_ext.training.tracking import check_tracking

__all__ = [
    "BestModel",
    "CPUPrecisionInferer",
    "LastCheckpoint",
    "OverlayPanels",
    "RegionDiceCELoss",
    "RunRecord",
    "TrainingLog",
    "check_tracking",
    "compilation",
    "keep_freed_memory",
    "parameter_groups",
]
