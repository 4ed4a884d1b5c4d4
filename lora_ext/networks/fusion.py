"""Channel fusion: the C latents of every tap become one (paper section 2.2)."""

# No `from __future__ import annotations` here: TorchScript reads the class annotations.
from collections.abc import Sequence

from torch import Tensor, nn


class ChannelFusion(nn.Module):
    """Reduce the C latents of every tap to one: one ``Linear(C * width -> width)`` per tap.

    Args:
        channels: number of image channels C.
        widths: features of a token at each tap.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(channels * width, width) for width in widths)

    def forward(self, taps: list[Tensor]) -> list[Tensor]:
        """Fuse the taps of shape (B, C, N, width) to as many of shape (B, N, width)."""
        fused: list[Tensor] = []
        for index, linear in enumerate(self.linears):  # the form of loop that TorchScript takes
            fused.append(linear(taps[index].transpose(1, 2).flatten(2)))
        return fused
