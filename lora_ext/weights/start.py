"""Where training starts from: the pre-trained encoder that a regime wants, or none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lora_ext.regimes import get_regime
from lora_ext.weights.encoders import load_encoder

if TYPE_CHECKING:
    from lora_ext.unetr import ChannelLoRAUNETR

logger = logging.getLogger(__name__)


def start_encoder(network: ChannelLoRAUNETR, pretrained: str | None) -> None:
    """Bring the encoder to where the network's regime starts from, and say so in the log.

    Args:
        network: a fresh network.
        pretrained: path of the pre-trained ViT; ``"none"`` (in any case) for random weights on
            purpose; ``None`` where nothing was given.

    Raises:
        ValueError: if the regime starts from a pre-trained encoder and none was given, if it
            starts at random and one was given, or if the file does not fit.
    """
    wanted = get_regime(network.regime).pretrained
    at_random = pretrained is not None and str(pretrained).lower() == "none"
    if pretrained is None and wanted:
        raise ValueError(
            f"regime {network.regime!r} starts from a pre-trained encoder and none was given: pass "
            "--pretrained FILE (bundles/mae_pretrain makes one from unlabelled volumes), or "
            "--pretrained none to start from random weights on purpose"
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
