"""Weights in and out: pre-trained encoders, adapter files, whole models."""

from lora_ext.weights.adapter import load_adapter, save_adapter
from lora_ext.weights.encoder import EncoderReport, load_encoder, save_encoder
from lora_ext.weights.ensemble import ensemble
from lora_ext.weights.model import load_model, save_model
from lora_ext.weights.record import (
    model_folders,
    read_record,
    recorded_settings,
    trained_settings,
)
from lora_ext.weights.start import (
    check_given_sizes,
    encoder_sizes,
    network_for_encoder,
    start_encoder,
)

__all__ = [
    "EncoderReport",
    "check_given_sizes",
    "encoder_sizes",
    "ensemble",
    "load_adapter",
    "load_encoder",
    "load_model",
    "model_folders",
    "network_for_encoder",
    "read_record",
    "recorded_settings",
    "save_adapter",
    "save_encoder",
    "save_model",
    "start_encoder",
    "trained_settings",
]
