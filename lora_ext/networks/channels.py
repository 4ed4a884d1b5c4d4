"""What the shared single-channel encoders have in common: the folded channels and the switch.

The C channels of an image are folded into the batch, channel-major, and run together ("batched").
Inside ``with encoder.channels("FLAIR"):`` the encoder takes that channel alone and uses that
channel's adapters alone ("switched", the paper's dynamic adapter switching, section 2.2). The two
agree to float rounding, in the output and in the gradients.
"""

# No `from __future__ import annotations` here: TorchScript reads the class annotations.
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from lora_ext.networks.lora import ChannelLoRALinear


class SharedEncoder(nn.Module):
    """An encoder of one-channel volumes that all channels of an image share.

    Attributes:
        channel_names: one name per image channel.
        channel_count: number of channels that `forward` takes, fewer inside `channels`.
        img_size: size of the input volume in voxels.
        widths: features of a token at each tap.
        linears: the linear layers that may have adapters, by the names that the field has for them.
    """

    linears = {name: name for name in ("qkv", "out_proj", "linear1", "linear2")}  # noqa: RUF012

    def share(
        self, channel_names: Sequence[str], img_size: Sequence[int], widths: Sequence[int]
    ) -> None:
        """Set what the class's attributes say; once, at construction."""
        self.channel_names = tuple(channel_names)
        self.channel_count = len(self.channel_names)
        self.img_size = list(img_size)
        self.widths = list(widths)

    @contextmanager
    def channels(self, *channels: str | int) -> "Iterator[SharedEncoder]":
        """Run the encoder on these channels alone, with their adapters alone.

        Args:
            channels: names (case-insensitive) or indices, in the order in which the input of
                `forward` holds them.

        Yields:
            The encoder itself.

        Raises:
            ValueError: for an unknown channel, or none at all.
        """
        chosen = [self._channel_index(channel) for channel in channels]
        if not chosen:
            raise ValueError(f"name at least one channel of {list(self.channel_names)}")
        layers = [m for m in self.modules() if isinstance(m, ChannelLoRALinear)]
        before = self.channel_count, [layer.active for layer in layers]
        self._activate(layers, [chosen] * len(layers), len(chosen))
        try:
            yield self
        finally:
            self._activate(layers, before[1], before[0])

    def fold(self, x: Tensor) -> Tensor:
        """(B, C, H, W, D), the active channels in their order -> (C * B, 1, H, W, D).

        Raises:
            ValueError: if `x` has another number of channels or another size.
        """
        if x.dim() != 5 or x.shape[1] != self.channel_count or list(x.shape[2:]) != self.img_size:
            raise ValueError(
                f"the encoder takes (batch, {self.channel_count}, "
                f"{self.img_size[0]}, {self.img_size[1]}, {self.img_size[2]}) "
                f"images; got {list(x.shape)}"
            )
        return x.transpose(0, 1).reshape([-1, 1] + self.img_size)  # noqa: RUF005 (TorchScript)

    def unfold(self, tokens: Tensor, batch: int) -> Tensor:
        """(C * B, N, width), channel-major -> (B, C, N, width)."""
        return tokens.reshape(-1, batch, tokens.shape[1], tokens.shape[2]).transpose(0, 1)

    def _channel_index(self, channel: str | int) -> int:
        names = [name.lower() for name in self.channel_names]
        if isinstance(channel, str) and channel.lower() in names:
            return names.index(channel.lower())
        if isinstance(channel, int) and 0 <= channel < len(names):
            return channel
        raise ValueError(f"unknown channel {channel!r}; known are {list(self.channel_names)}")

    def _activate(
        self, layers: list[ChannelLoRALinear], active: list[list[int]], count: int
    ) -> None:
        self.channel_count = count
        for layer, channels in zip(layers, active, strict=True):
            layer.active = channels


def check_channel_names(channel_names: Sequence[str]) -> None:
    """Refuse names of channels that `SharedEncoder.channels` could not tell apart.

    Raises:
        ValueError: if there are none, or two are the same but for their case.
    """
    lowered = [name.lower() for name in channel_names]
    if not lowered or len(set(lowered)) != len(lowered):
        raise ValueError(f"channel names must differ and be at least one; got {channel_names}")
