"""Channel-wise, rank-stabilised LoRA on a linear layer.

One frozen weight ``W`` serves every image channel (FLAIR, T1w, ...). Each channel ``c`` owns a
low-rank pair ``A_c``, ``B_c`` that bends the layer for that channel alone::

        x_c  (tokens of channel c, width d_in)
         |
         +------------------+
         |                  |
      W  d_out x d_in    A_c  r x d_in         Kaiming-uniform at the start
         |                  |
         |               B_c  d_out x r        zero at the start
         |                  |
         |              x alpha / sqrt(r)      rank-stabilised: alpha does not grow with r
         +--------(+)-------+
                   |
        y_c = W x_c + b + (alpha / sqrt(r)) B_c A_c x_c

``B`` starts at zero, so a fresh adapter changes nothing. The factor is ``alpha / sqrt(r)`` and not
``alpha / r``: only then do activations and gradients keep their size as the rank grows
(Kalajdzievski 2023, arXiv:2312.03732). The classical ``alpha / r`` (Hu et al. 2021,
arXiv:2106.09685) is there to compare with.

The C pairs are stacked, ``lora_A`` (C, r, d_in) and ``lora_B`` (C, d_out, r), and the channels are
folded into the batch, channel-major: rows ``[c * n, (c + 1) * n)`` of the folded batch belong to
channel ``c``. The base product then is one matrix product over all rows, and the low-rank part is
two batched products over the stack. ``weight`` and ``bias`` keep their names, so a plain
checkpoint loads with only ``lora_A`` and ``lora_B`` missing.
"""

# No `from __future__ import annotations` here: TorchScript reads the class annotations.
import math

import torch
from torch import Tensor, nn

# What alpha is divided by, from the rank.
SCALINGS = {"rank_stabilised": math.sqrt, "classical": float}


def check_scaling(scaling: str) -> None:
    """Refuse an unknown scaling.

    Raises:
        ValueError: if `scaling` is none of `SCALINGS`.
    """
    if scaling not in SCALINGS:
        raise ValueError(f"lora_scaling: found {scaling!r}; allowed are {', '.join(SCALINGS)}")


def adapter_scale(alpha: float, rank: int, scaling: str) -> float:
    """Compute the factor of the low-rank part.

    Args:
        alpha: numerator of the factor.
        rank: rank r, at least 1.
        scaling: ``rank_stabilised`` (``alpha / sqrt(r)``) or ``classical`` (``alpha / r``).

    Raises:
        ValueError: for another scaling.
    """
    check_scaling(scaling)
    return alpha / SCALINGS[scaling](rank)


class ChannelLoRALinear(nn.Linear):
    """A linear layer with one low-rank adapter per image channel.

    Attributes:
        lora_A: stacked down-projections, shape (C, r, in_features).
        lora_B: stacked up-projections, shape (C, out_features, r), zero at the start.
        active: the channels that the folded batch holds, in that order; empty means all of them.
            `ChannelEncoder.channels` sets it. Switching never touches ``requires_grad``, so every
            adapter whose channel was run gets its gradient, however the channels were run.

    Args:
        linear: the layer to adapt; its weight and bias are taken over, not copied.
        channels: number of image channels C.
        rank: rank r of every adapter.
        alpha: numerator of the scale.
        scaling: ``rank_stabilised`` (scale ``alpha / sqrt(r)``) or ``classical`` (``alpha / r``).

    Raises:
        ValueError: if `channels` or `rank` is below 1, or for another scaling.
    """

    active: list[int]

    def __init__(
        self,
        linear: nn.Linear,
        channels: int,
        rank: int,
        alpha: float,
        scaling: str = "rank_stabilised",
    ) -> None:
        if channels < 1 or rank < 1:
            raise ValueError(
                f"channels and lora_rank must be at least 1; got channels={channels}, rank={rank}"
            )
        has_bias = linear.bias is not None
        super().__init__(linear.in_features, linear.out_features, bias=has_bias, device="meta")
        self.weight = linear.weight
        if has_bias:
            self.bias = linear.bias
        self.scale = adapter_scale(alpha, rank, scaling)
        self.active = []
        self.lora_A = nn.Parameter(linear.weight.new_empty(channels, rank, linear.in_features))
        self.lora_B = nn.Parameter(linear.weight.new_zeros(channels, linear.out_features, rank))
        for pair in self.lora_A:
            nn.init.kaiming_uniform_(pair, a=math.sqrt(5))

    def adapter_parameters(self) -> list[nn.Parameter]:
        """The parameters that belong to the adapters, as opposed to the base layer."""
        return [self.lora_A, self.lora_B]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the base layer and the adapter of each row's channel.

        Args:
            x: folded tokens, shape (G * n, ..., in_features), channel-major, where G is the number
                of active channels.

        Returns:
            Tokens of shape (G * n, ..., out_features).
        """
        down: Tensor = self.lora_A
        up: Tensor = self.lora_B
        if len(self.active) > 0:
            index = torch.tensor(self.active, device=down.device)
            down, up = down.index_select(0, index), up.index_select(0, index)
        groups = down.shape[0]
        base = nn.functional.linear(x, self.weight, self.bias)
        low_rank = torch.bmm(x.reshape(groups, -1, self.in_features), down.transpose(1, 2))
        adapted = torch.baddbmm(
            base.reshape(groups, -1, self.out_features),
            low_rank,
            up.transpose(1, 2),
            alpha=self.scale,
        )
        return adapted.view_as(base)

    def extra_repr(self) -> str:
        """Sizes for ``print(network)``."""
        channels, rank, _ = self.lora_A.shape
        return f"{super().extra_repr()}, channels={channels}, rank={rank}, scale={self.scale:.4g}"


def add_channel_lora(
    module: nn.Module,
    targets: tuple[str, ...],
    channels: int,
    rank: int,
    alpha: float,
    scaling: str = "rank_stabilised",
) -> None:
    """Put channel-wise adapters on every linear layer below `module` that `targets` names.

    Args:
        module: the network part to adapt, in place.
        targets: last names of the layers, such as ``("out_proj", "linear1")``.
        channels: number of image channels C.
        rank: rank r of every adapter.
        alpha: numerator of the scale.
        scaling: ``rank_stabilised`` (scale ``alpha / sqrt(r)``) or ``classical`` (``alpha / r``).

    Raises:
        ValueError: if a target names no linear layer, a named layer has adapters already, or the
            scaling is unknown.
    """
    linears = {name: m for name, m in module.named_modules() if isinstance(m, nn.Linear)}
    known = sorted({name.rpartition(".")[2] for name in linears})
    unknown = sorted(set(targets) - set(known))
    if unknown or not targets:
        raise ValueError(f"lora_targets {list(targets)} must name linear layers out of {known}")
    for name, linear in linears.items():
        parent, _, last = name.rpartition(".")
        if last not in targets:
            continue
        if isinstance(linear, ChannelLoRALinear):
            raise ValueError(f"layer {name!r} has channel-wise adapters already")
        adapted = ChannelLoRALinear(linear, channels, rank, alpha, scaling)
        setattr(module.get_submodule(parent), last, adapted)
