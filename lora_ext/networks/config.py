"""What a network was built with, as a record beside its weights and inside their file.

Networks of different ``num_heads`` or ``lora_alpha`` have the same keys and shapes, so weights
alone cannot tell that they are loaded into the wrong one: it would compute something else without
a word. ``network.json`` tells it to this package. The same record in the metadata of the state
dict, which `torch.nn.Module.load_state_dict` hands to its hooks, tells it to everyone else, such as
MONAI's exports.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

# Constructor arguments that are settings of other names in a bundle.
FLAGS = {"img_size": "roi_size", "in_channels": "modalities", "out_channels": "regions"}
# What can differ between training and use without changing what the network computes.
FREE = ("regime", "modality_dropout", "modalities", "encoder")  # modalities are compared apart
KEY = "config"  # in the metadata of a state dict
PLAIN = "unetr"  # the backbone of a record that says none
SHOWN = 3  # of a list in a sentence


def misfit(made: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """Say how a network differs from the one that weights were trained in.

    Args:
        made: the record of the trained network.
        config: the constructor's arguments of the network at hand.

    Returns:
        A part of a sentence that ends with the flags to pass, or ``None`` where weights fit.
    """
    ours = json.loads(json.dumps(config))
    made = {"backbone": PLAIN, **made}
    adapters = made.get("regime") == "lora" or ours.get("regime") == "lora"
    shared = made.keys() & ours.keys()  # a record says more than a network's arguments
    names = [k for k in ours if k in shared and k not in FREE]
    wrong = [k for k in names if made[k] != ours[k] and (adapters or not k.startswith("lora_"))]
    if made.get("modalities") != ours.get("modalities"):
        wrong.append("modalities")
    if not wrong:
        return None
    if len(wrong) > SHOWN:
        differing = few([f"{k} {made.get(k)}" for k in wrong])
        return (
            f"was trained with other settings than this network's ({differing}); give the model of "
            "this bundle, or pass the settings in the network.json beside it"
        )
    flags = " ".join(f'--{FLAGS.get(k, k)} "{made.get(k)}"' for k in wrong)
    found = ", ".join(f"{k}={ours.get(k)}" for k in wrong)
    return f"was trained with other settings than this network's ({found}); pass {flags}"


def few(names: Sequence[str]) -> str:
    """The first few names of a list, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def with_record(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Make a state dict that carries the record of its network.

    Args:
        tensors: the network's tensors by name.
        config: the constructor's arguments, as JSON can hold them.

    Returns:
        The same tensors, loadable with ``weights_only=True`` once saved.
    """
    state = OrderedDict(tensors)
    state._metadata = {"": {"version": 1, KEY: dict(config)}}  # type: ignore[attr-defined]
    return state


def refuse_misfit(
    network: nn.Module, state: Any, prefix: str, metadata: Mapping[str, Any], *lists: Any
) -> None:
    """A hook before ``load_state_dict``: weights of a network that was built otherwise do not load.

    Weights without a record, and names of channels in a network that was given none, are let
    through.

    Args:
        network: the network, with its constructor's arguments as ``config``.
        state: unused.
        prefix: unused.
        metadata: the network's own part of the state dict's metadata.
        *lists: ``load_state_dict``'s further arguments, its list of errors the last one.
    """
    made, config = metadata.get(KEY), dict(getattr(network, "config", {}))
    if made is None:
        return
    if config.get("modalities") == default_names(len(config.get("modalities", []))):
        config["modalities"] = made.get("modalities")
    found = misfit(made, config)
    if found is not None:
        lists[-1].append(f"the file {found}")
    else:
        keep_record(vars(network)["config"], made)


def keep_record(config: dict[str, Any], made: Mapping[str, Any]) -> None:
    """Let a network say where its weights come from, in place.

    Args:
        config: what the network says of itself.
        made: the record of the model that was loaded into it.
    """
    config.update({k: v for k, v in made.items() if k not in config or k == "encoder"})


def default_names(channels: int) -> list[str]:
    """Names of channels where none were given."""
    return [f"channel{index}" for index in range(channels)]
