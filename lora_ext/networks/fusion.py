"""Channel fusion: the C latents of every tap become one (paper section 2.2)."""

# No `from __future__ import annotations` here: TorchScript reads the class annotations.
from torch import Tensor, nn


class ChannelFusion(nn.Module):
    """Reduce the C latents of every tap to one: one ``Linear(C * hidden -> hidden)`` per tap.

    Args:
        channels: number of image channels C.
        hidden_size: width of a token.
    """

    def __init__(self, channels: int, hidden_size: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(
            nn.Linear(channels * hidden_size, hidden_size) for _ in range(4)
        )

    def forward(self, taps: list[Tensor]) -> list[Tensor]:
        """Fuse four taps of shape (B, C, N, hidden) to four of shape (B, N, hidden)."""
        fused: list[Tensor] = []
        for index, linear in enumerate(self.linears):  # the form of loop that TorchScript takes
            fused.append(linear(taps[index].transpose(1, 2).flatten(2)))
        return fused
