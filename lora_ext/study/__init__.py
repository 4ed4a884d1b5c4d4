"""A study: train and evaluate bundles as a user would, resume, and write the paper's tables."""

from lora_ext.study.ablation import run_ablation
from lora_ext.study.reference import REFERENCES, ReferenceNetwork
from lora_ext.study.results import DeviceRecord
from lora_ext.study.study import run_study

__all__ = ["REFERENCES", "DeviceRecord", "ReferenceNetwork", "run_ablation", "run_study"]
