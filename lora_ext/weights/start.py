"""Where training starts from: a pre-trained encoder that is given or found, or random weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_ext.networks import build_network
from lora_ext.networks.channel_network import ChannelNetwork
from lora_ext.networks.config import PLAIN
from lora_ext.networks.regimes import get_regime
from lora_ext.weights import swin_layout
from lora_ext.weights.adapter import encoder_fingerprint
from lora_ext.weights.encoder import (
    HEAD_WIDTH,
    SWIN,
    EncoderFile,
    EncoderReport,
    fill_encoder,
    read_encoder,
)
from lora_ext.weights.remote import is_remote
from lora_ext.weights.sizes import ARGUMENTS, NOTES, check_sizes
from lora_ext.weights.swin_layout import SwinFile

ENCODER = "encoder.safetensors"  # as bundles/mae_pretrain names what it makes
RANDOM = "random"  # what the record says of an encoder that no file was loaded into

NAMES = ARGUMENTS | swin_layout.ARGUMENTS  # arguments by the sizes' names in a sentence

logger = logging.getLogger(__name__)


def network_for_encoder(
    path: str | os.PathLike[str],
    in_channels: int,
    out_channels: int,
    img_size: Sequence[int],
    *,
    regime: str,
    **rest: Any,
) -> ChannelNetwork:
    """Build the network whose encoder has the sizes of a file, and load the file.

    What no file shows, the number of heads, is taken from the file's metadata, else from `rest`,
    else as hidden size / 64; the log says so.

    Args:
        path: file or address of a pre-trained encoder, see `load_encoder`.
        in_channels: number of image channels C.
        out_channels: number of regions.
        img_size: input size in voxels.
        regime: ``finetune``, ``frozen`` or ``lora``.
        **rest: further arguments of `ChannelLoRAUNETR`, or of `ChannelLoRASwinUNETR` for a Swin
            encoder; ``backbone`` to take no other.

    Returns:
        The network; its ``config`` names the encoder.

    Raises:
        ValueError: if the regime starts at random, a size in `rest` is not the file's, or the file
            cannot be loaded.
    """
    _check_regime(regime, os.fspath(path))
    file = read_encoder(path, rest.pop("backbone", None))
    check_given_sizes(file.path, file.said, rest)
    sizes = file.arguments
    if "num_heads" not in sizes | rest:
        raise ValueError(_no_heads(file.path, file.said["hidden_size"], "num_heads"))
    network = build_network(
        SWIN if isinstance(file, SwinFile) else PLAIN, in_channels=in_channels,
        out_channels=out_channels, img_size=img_size, regime=regime, **sizes | rest,
    )  # fmt: skip
    logger.info("%s", _fill(network, file))
    return network


def encoder_sizes(
    regime: str,
    default: Mapping[str, Any],
    pretrained: str | None = None,
    ckpt_dir: str | os.PathLike[str] | None = None,
    bundle_root: str | os.PathLike[str] | None = None,
    backbone: str = PLAIN,
) -> dict[str, Any]:
    """Look up the sizes of the encoder that a training will start from.

    Args:
        regime: see `start_encoder`.
        default: the sizes where it starts from random weights.
        pretrained: see `start_encoder`.
        ckpt_dir: see `start_encoder`.
        bundle_root: see `start_encoder`.
        backbone: the network's.

    Returns:
        The sizes by name; of a ViT ``num_heads`` is None where neither the file nor its hidden size
        tells. Beside them ``file`` and ``said``: the file, or None, and the sizes that it says of
        itself.

    Raises:
        ValueError: see `start_encoder`.
    """
    path = chosen_encoder(regime, pretrained, ckpt_dir, bundle_root, backbone)
    if path is None:
        return {**default, "file": None, "said": {}}
    with _hint(pretrained is None):
        file = read_encoder(path, backbone)
    sizes = {"num_heads": None, **file.arguments}
    return {**default, **sizes, "file": file.path, "said": file.said}


def check_given_sizes(
    path: str, said: Mapping[str, Any], given: Mapping[str, Any], flags: bool = False
) -> None:
    """Refuse sizes that are not those of an encoder's file.

    Args:
        path: the file, for messages.
        said: the sizes that it says of itself.
        given: the network's.
        flags: whether these came as flags.

    Raises:
        ValueError: for sizes that differ; for no number of heads where nothing tells it.
    """
    theirs, ours = (
        {name: sizes[key] for name, key in NAMES.items() if key in said and key in sizes}
        for sizes in (said, given)
    )
    hint = "; leave these out, since the file says them"
    hint += ", or give --pretrained none" if flags else ""
    check_sizes(theirs, ours, path, hint, NOTES | swin_layout.NOTES)
    if given.get("num_heads", 1) is None:
        raise ValueError(_no_heads(path, said["hidden_size"], "--num_heads"))


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
        pretrained: path or address of the pre-trained ViT, see `load_encoder`; ``"none"`` (in any
            case) for random weights on purpose; ``None`` to take what `find_encoder` finds, and
            else random weights with a warning.
        ckpt_dir: see `find_encoder`.
        bundle_root: see `find_encoder`.

    Raises:
        ValueError: if the regime starts at random and an encoder was given, or if the file cannot
            be read or does not fit.
    """
    network.config["encoder"] = RANDOM
    backbone = network.config.get("backbone", PLAIN)  # a study's reference networks have none
    path = chosen_encoder(network.regime, pretrained, ckpt_dir, bundle_root, backbone)
    if path is not None:
        with _hint(pretrained is None):
            logger.info("%s", _fill(network, read_encoder(path, backbone)))
    elif get_regime(network.regime).pretrained and pretrained is not None:
        logger.warning("--pretrained none: regime %r starts from random weights", network.regime)
    elif get_regime(network.regime).pretrained:
        logger.warning(_WARNING, network.regime, ENCODER)


def chosen_encoder(
    regime: str,
    pretrained: str | None = None,
    ckpt_dir: str | os.PathLike[str] | None = None,
    bundle_root: str | os.PathLike[str] | None = None,
    backbone: str = PLAIN,
) -> str | None:
    """Say which encoder a regime starts from; the arguments are those of `encoder_sizes`.

    Returns:
        Its path or address; None for random weights.

    Raises:
        ValueError: if the path cannot be one, or the regime takes no encoder.
    """
    if pretrained is None:
        if not get_regime(regime).pretrained:
            return None
        found = find_encoder(ckpt_dir, bundle_root, backbone)
        return None if found is None else str(found)
    text = str(pretrained)
    if not text.strip():
        raise ValueError(
            "--pretrained: found an empty path; expected a file of weights, or none for random "
            "weights: name one, or leave --pretrained out"
        )
    if text.lower() == "none":
        return None
    _check_regime(regime, text)
    if is_remote(text):
        return text.replace("::sha256=", "#sha256=")  # MONAI made the first of the second
    if "::" in text:
        raise ValueError(
            f"--pretrained: found {text}, expected a path without # and ::, which MONAI's configs "
            "do not tell apart; rename the file, or give a link to it"
        )
    return text


def find_encoder(
    ckpt_dir: str | os.PathLike[str] | None,
    bundle_root: str | os.PathLike[str] | None,
    backbone: str = PLAIN,
) -> Path | None:
    """Look for an encoder where one is expected.

    Args:
        ckpt_dir: the run's folder of models.
        bundle_root: the bundle's folder.
        backbone: the network's; ``mae_pretrain`` makes encoders of ``unetr`` alone.

    Returns:
        The first ``encoder.safetensors`` of: `ckpt_dir`, the bundle's ``models``, the neighbouring
        ``mae_pretrain``'s ``models``. ``None`` where there is none.
    """
    folders = [] if ckpt_dir is None else [Path(ckpt_dir)]
    if bundle_root is not None:
        folders.append(Path(bundle_root, "models"))
        if backbone == PLAIN:
            folders.append(Path(bundle_root).parent / "mae_pretrain/models")
    return next((folder / ENCODER for folder in folders if (folder / ENCODER).is_file()), None)


def _check_regime(regime: str, pretrained: str) -> None:
    if not get_regime(regime).pretrained:
        raise ValueError(
            f"regime {regime!r} starts from a random encoder, but pretrained={pretrained!r} was "
            "given; use regime 'finetune' to start from it, or leave pretrained out"
        )


def _fill(network: ChannelNetwork, file: EncoderFile | SwinFile) -> EncoderReport:
    report = fill_encoder(network, file)
    name = file.path if is_remote(file.path) else Path(file.path).name
    network.config["encoder"] = f"{name} (sha256 {encoder_fingerprint(network)[:12]})"
    return report


@contextmanager
def _hint(found: bool) -> Iterator[None]:
    """Say, of an encoder that nobody named, how to do without."""
    try:
        yield
    except ValueError as error:
        hint = "; --pretrained none starts without it, --pretrained FILE from another"
        raise ValueError(f"{error}{hint if found else ''}") from error


def _no_heads(path: str, hidden_size: int, flag: str) -> str:
    return (
        f"{path}: found hidden size {hidden_size}, no multiple of {HEAD_WIDTH}, and no word about "
        f"the number of attention heads, which no weight shows; give {flag}"
    )


_WARNING = (
    "no pre-trained encoder was found: regime %r starts from RANDOM weights, so its results say "
    "nothing about the regime; the model's record and every table will show it.\n"
    "Pass --pretrained FILE, or run bundles/mae_pretrain first, whose %s is found without a flag; "
    "--pretrained none starts at random on purpose."
)
