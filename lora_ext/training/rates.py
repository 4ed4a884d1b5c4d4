"""Learning rates: one for what starts from random weights, one for a pre-trained encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lora_ext.networks.regimes import get_regime, parameter_parts

if TYPE_CHECKING:
    from lora_ext.networks.channel_network import ChannelNetwork


def param_groups(
    network: ChannelNetwork, learning_rate: float, encoder_learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """Group what a network trains by its learning rate, for an optimizer.

    A rate that suits a fresh decoder takes a pre-trained encoder far from where it started within
    a few steps. Only a regime that trains a pre-trained encoder (``finetune``) gets a second group;
    adapters start at zero and take the decoder's rate.

    Args:
        network: its regime says what is trained.
        learning_rate: the (largest) learning rate.
        encoder_learning_rate: that of a pre-trained encoder's weights; None for the same.

    Returns:
        One or two groups with ``params`` and ``lr``, the encoder's last.

    Raises:
        ValueError: if `encoder_learning_rate` is negative.
    """
    if encoder_learning_rate is not None and encoder_learning_rate < 0:
        raise ValueError(
            f"encoder_learning_rate: found {encoder_learning_rate}; allowed are numbers from 0 on, "
            "or None for learning_rate"
        )
    regime = get_regime(network.regime)
    trained = network.trainable_parameters()
    if encoder_learning_rate is None or not regime.pretrained or "encoder" not in regime.trained:
        return [{"params": trained, "lr": learning_rate}]
    encoder = parameter_parts(network)["encoder"]
    known = {id(p) for p in encoder}
    fresh = [p for p in trained if id(p) not in known]
    return [
        {"params": fresh, "lr": learning_rate},
        {"params": encoder, "lr": encoder_learning_rate},
    ]
