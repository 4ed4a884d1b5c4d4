"""How good is a segmentation: Dice, HD95 and volumes per case, a report, pictures."""

from lora_ext.evaluation.case_log import CaseLog
from lora_ext.evaluation.figures import overlay_figure, save_figure
from lora_ext.evaluation.metrics import (
    CaseMetrics,
    RegionMetrics,
    case_metrics,
    summary,
)
from lora_ext.evaluation.overlay import overlay_from_files
from lora_ext.evaluation.pooled import PooledDice
from lora_ext.evaluation.report import CaseReport

__all__ = [
    "CaseLog",
    "CaseMetrics",
    "CaseReport",
    "PooledDice",
    "RegionMetrics",
    "case_metrics",
    "overlay_figure",
    "overlay_from_files",
    "save_figure",
    "summary",
]
