"""Where training starts from: a pre-trained encoder that is given or found, or random weights."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from lora_ext.networks.regimes import get_regime
from lora_ext.weights.adapter import encoder_fingerprint
from lora_ext.weights.encoder import load_encoder

if TYPE_CHECKING:
    from lora_ext.networks.channel_network import ChannelNetwork

ENCODER = "encoder.safetensors"  # as bundles/mae_pretrain names what it makes
RANDOM = "random"  # what the record says of an encoder that no file was loaded into

logger = logging.getLogger(__name__)


def start_encoder(
    network: ChannelNetwork,
    pretrained: str | None = None,
    ckpt_dir: str | os.PathLike[str] | None = None,
    bundle_root: str | os.PathLike[str] | None = None,
) -> None:
    """Bring the encoder to where the network's regime starts from, and record and log which it is.

    Args:
        network: a fresh network; its ``config["encoder"]`` says afterwards what was loaded, or
            ``random``.
        pretrained: path of the pre-trained ViT; ``"none"`` (in any case) for random weights on
            purpose; ``None`` to take what `find_encoder` finds, and else random weights with a
            warning.
        ckpt_dir: see `find_encoder`.
        bundle_root: see `find_encoder`.

    Raises:
        ValueError: if the regime starts at random and an encoder was given, or if the file cannot
            be read or does not fit.
    """
    network.config["encoder"] = RANDOM
    if pretrained is not None and not str(pretrained).strip():
        raise ValueError(
            "--pretrained: found an empty path; expected a file of weights, or none for random "
            "weights: name one, or leave --pretrained out"
        )
    at_random = str(pretrained).lower() == "none" and pretrained is not None
    if not get_regime(network.regime).pretrained:
        if pretrained is not None and not at_random:
            raise ValueError(
                f"regime {network.regime!r} starts from a random encoder, but pretrained="
                f"{pretrained!r} was given; use regime 'finetune' to start from it, or leave "
                "pretrained out"
            )
        return
    path = pretrained if pretrained is not None else find_encoder(ckpt_dir, bundle_root)
    if at_random:
        logger.warning("--pretrained none: regime %r starts from random weights", network.regime)
    elif path is None:
        logger.warning(_WARNING, network.regime, ENCODER)
    else:
        logger.info("%s", _load(network, str(path), found=pretrained is None))


def find_encoder(
    ckpt_dir: str | os.PathLike[str] | None, bundle_root: str | os.PathLike[str] | None
) -> Path | None:
    """Look for an encoder where one is expected.

    Args:
        ckpt_dir: the run's folder of models.
        bundle_root: the bundle's folder.

    Returns:
        The first ``encoder.safetensors`` of: `ckpt_dir`, the bundle's ``models``, the neighbouring
        ``mae_pretrain``'s ``models``. ``None`` where there is none.
    """
    folders = [] if ckpt_dir is None else [Path(ckpt_dir)]
    if bundle_root is not None:
        folders += [Path(bundle_root, "models"), Path(bundle_root).parent / "mae_pretrain/models"]
    return next((folder / ENCODER for folder in folders if (folder / ENCODER).is_file()), None)


def _load(network: ChannelNetwork, path: str, found: bool) -> str:
    try:
        report = load_encoder(network, path)
    except ValueError as error:
        hint = "; --pretrained none starts without it, --pretrained FILE from another"
        raise ValueError(f"{error}{hint if found else ''}") from error
    fingerprint = encoder_fingerprint(network)
    network.config["encoder"] = f"{Path(path).name} (sha256 {fingerprint[:12]})"
    return str(report)


_WARNING = (
    "no pre-trained encoder was found: regime %r starts from RANDOM weights, so its results say "
    "nothing about the regime; the model's record and every table will show it.\n"
    "Pass --pretrained FILE, or run bundles/mae_pretrain first, whose %s is found without a flag; "
    "--pretrained none starts at random on purpose."
)
