"""How good is a segmentation: Dice, HD95 and volumes per case, a report, pictures."""

from lora_ext.evaluation.averaging import AveragingInferer
from lora_ext.evaluation.metrics import (
    CaseMetrics,
    PooledDice,
    RegionMetrics,
    case_metrics,
    summary,
)
from lora_ext.evaluation.report import CaseLog, CaseReport

__all__ = [
    "AveragingInferer",
    "CaseLog",
    "CaseMetrics",
    "CaseReport",
    "PooledDice",
    "RegionMetrics",
    "case_metrics",
    "summary",
]
