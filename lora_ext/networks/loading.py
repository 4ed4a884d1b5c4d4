"""What a network takes as weights: plain tensors of finite floating-point numbers.

PyTorch copies anything that has the right shape: whole numbers, which lost what was behind the
point, and NaN, which makes an empty segmentation. The check runs in our own readers, and as a hook
in everybody else's ``load_state_dict``: MONAI Label's, MONAI's exports and ``CheckpointLoader``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# float32 holds them exactly, but for float64, which is rounded. float8 is left out: its files keep
# the scale of a tensor in another one.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def form(value: Any) -> str | None:
    """Say how a value is stored, unless it is a plain tensor.

    Args:
        value: what was read.

    Returns:
        Its kind in words, or ``None`` for a dense tensor with values.
    """
    if not isinstance(value, Tensor):
        return f"an object of type {type(value).__name__}"
    if value.is_nested:
        return "a nested tensor"
    if value.is_quantized:
        return f"a quantised tensor ({_name(value.dtype)})"
    if value.layout != torch.strided:
        return f"a sparse tensor ({_name(value.layout)})"
    return "a tensor without values (device meta)" if value.is_meta else None


def check_weight(key: str, value: Any, target: Tensor, source: object) -> None:
    """Refuse what would be copied into a network without being a weight.

    Args:
        key: its name.
        value: what was read.
        target: the network's tensor that it is for.
        source: the file, for messages.

    Raises:
        ValueError: unless `value` is a dense tensor of finite floating-point numbers in the range
            of `target`; or, for a counter, of the type of `target`.
    """
    found = form(value) or _numbers(value, target)
    if found is not None:
        raise ValueError(
            f"{source}: found {key!r} as {found}; expected a plain tensor of finite "
            f"{_name(target.dtype)} numbers, so save the state dict of the trained network again"
        )


def refuse_no_weights(
    network: nn.Module, state: Mapping[str, Any], prefix: str, *others: Any
) -> None:
    """A hook before ``load_state_dict``: nothing is loaded unless all that has a place is a weight.

    Args:
        network: the network.
        state: what is about to be loaded.
        prefix: of the network's keys in it.
        *others: unused.

    Raises:
        ValueError: see `check_weight`.
    """
    for key, target in network.state_dict().items():
        if prefix + key in state:
            check_weight(key, state[prefix + key], target, "weights to load")


def _numbers(value: Tensor, target: Tensor) -> str | None:
    """Which numbers a plain tensor holds, unless `target` can take them."""
    if not target.is_floating_point():
        return None if value.dtype == target.dtype else f"{_name(value.dtype)} numbers"
    if value.dtype not in FLOATS:
        return f"{_name(value.dtype)} numbers"
    largest = torch.finfo(target.dtype).max
    if value.numel() == 0 or all(abs(v.item()) <= largest for v in torch.aminmax(value.detach())):
        return None
    wrong = value[~(value.abs() <= largest)]  # NaN is no number to compare
    return (
        f"{wrong.numel()} of {value.numel()} numbers that are not finite in "
        f"{_name(target.dtype)}, the first is {wrong[0].item()}"
    )


def _name(kind: object) -> str:
    return str(kind).removeprefix("torch.")
