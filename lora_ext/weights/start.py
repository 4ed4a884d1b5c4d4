"""Where training starts from: a pre-trained encoder, a whole model, or random weights."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from lora_ext.regimes import get_regime
from lora_ext.weights.encoders import load_encoder

if TYPE_CHECKING:
    from lora_ext.unetr import ChannelLoRAUNETR

ENCODER = "encoder.safetensors"  # as bundles/mae_pretrain names what it makes

logger = logging.getLogger(__name__)


def start_encoder(
    network: ChannelLoRAUNETR,
    pretrained: str | None,
    ckpt_dir: str | os.PathLike[str] | None = None,
    goes_on: bool = False,
) -> None:
    """Bring the encoder to where the network's regime starts from, and say so in the log.

    Args:
        network: a fresh network.
        pretrained: path of the pre-trained ViT; ``"none"`` (in any case) for random weights on
            purpose; ``None`` where nothing was given: then ``encoder.safetensors`` in `ckpt_dir`,
            if the regime wants one and it is there.
        ckpt_dir: the bundle's folder of models.
        goes_on: whether a handler of the trainer, MONAI's ``CheckpointLoader``, is about to load a
            whole model, the encoder included. Nothing is loaded or asked for then.

    Raises:
        ValueError: if the regime starts from a pre-trained encoder and none was given, if it
            starts at random and one was given, or if the file does not fit.
    """
    if goes_on:
        logger.info("going on from a whole model, which CheckpointLoader loads, encoder included")
        return
    wanted = get_regime(network.regime).pretrained
    at_random = pretrained is not None and str(pretrained).lower() == "none"
    if pretrained is None and wanted:
        pretrained = _placed_encoder(ckpt_dir)
    if pretrained is None and wanted:
        raise ValueError(
            f"regime {network.regime!r} starts from a pre-trained encoder and none was given: pass "
            "--pretrained FILE (bundles/mae_pretrain makes one from unlabelled volumes), or "
            f"--pretrained none to start from random weights on purpose; {ENCODER} in the folder "
            "of models is taken by itself"
        )
    if pretrained is not None and not at_random and not wanted:
        raise ValueError(
            f"regime {network.regime!r} starts from a random encoder, but pretrained={pretrained!r}"
            " was given; use regime 'finetune' to start from it, or leave pretrained out"
        )
    if wanted and at_random:
        logger.warning(
            "regime %r starts from random weights, as --pretrained none asks: "
            "no pre-trained encoder is loaded",
            network.regime,
        )
    elif wanted:
        logger.info("%s", load_encoder(network, str(pretrained)))


def _placed_encoder(ckpt_dir: str | os.PathLike[str] | None) -> str | None:
    """The encoder that lies in the folder of models, if there is one."""
    path = None if ckpt_dir is None else Path(ckpt_dir) / ENCODER
    return str(path) if path is not None and path.is_file() else None
