"""UNETR's decoder with less work: the same parameters and numbers, another order of arithmetic.

At the paper's size the decoder is nine tenths of a training step, so it pays to

- keep volumes channels-last, which oneDNN and cuDNN take without reordering (in float32 on a CPU
  PyTorch itself leaves that layout for some convolutions),
- do norm, sum and activation in place of three passes (`lora_ext.acceleration.instance_norm`),
- never make the upsampled volume that only a convolution reads
  (`lora_ext.acceleration.upsampling`), nor its concatenation with the skip features:
  ``conv([u, s]) = conv_u(u) + conv_s(s)``.
"""

from __future__ import annotations

import torch
from monai.networks.blocks import UnetrUpBlock
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import Tensor
from torch.nn import functional

from lora_ext.acceleration.instance_norm import instance_norm
from lora_ext.acceleration.upsampling import composing_pays, convolve_upsampled
from lora_ext.networks.decoder import UNETRDecoder


class ResidualBlock(UnetResBlock):
    """MONAI's residual block with instance norm, in fewer passes over memory."""

    def forward(self, inp: Tensor) -> Tensor:
        """Transform features (B, in_channels, H, W, D) to (B, out_channels, H, W, D)."""
        residual = inp
        if hasattr(self, "conv3"):
            residual = instance_norm(self.conv3(inp), None, 1.0, True)
        inner = _normed(self.conv1(inp))
        return _normed(self.conv2(inner), residual)

    def forward_pair(self, x: Tensor, up: Tensor, skip: Tensor) -> Tensor:
        """Transform ``[upsampled x, skip]`` without making the first or the pair.

        Args:
            x: coarse features, shape (B, in, H / 2, W / 2, D / 2).
            up: kernel of the upsampling, shape (in, mid, 2, 2, 2).
            skip: fine features, shape (B, mid, H, W, D).

        Returns:
            Features of shape (B, out_channels, H, W, D).
        """
        residual = instance_norm(
            _convolve_pair(self.conv3.conv.weight, x, up, skip), None, 1.0, True
        )
        inner = _normed(_convolve_pair(self.conv1.conv.weight, x, up, skip))
        return _normed(self.conv2(inner), residual)


def _normed(x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Norm, sum and activation in the place of a convolution's output."""
    return instance_norm(x, residual, overwrite=True)


def _convolve_pair(kernel: Tensor, x: Tensor, up: Tensor, skip: Tensor) -> Tensor:
    """``conv3d(cat(conv_transpose3d(x, up), skip), kernel)``, as a sum of two."""
    mid = up.shape[1]
    out = convolve_upsampled(x, up, kernel[:, :mid])
    out += functional.conv3d(skip, kernel[:, mid:], padding="same")
    return out


class MergeBlock(UnetrUpBlock):
    """MONAI's upsampling block: double the coarse features, concatenate the skip, convolve."""

    def forward(self, inp: Tensor, skip: Tensor) -> Tensor:
        """Merge (B, in, H / 2, W / 2, D / 2) and (B, out, H, W, D) to (B, out, H, W, D)."""
        up, kernel = self.transp_conv.conv.weight, self.conv_block.conv1.conv.weight
        if composing_pays(inp, up, kernel):
            return self.conv_block.forward_pair(inp, up, skip)  # type: ignore[operator]
        return super().forward(inp, skip)


class ChannelsLastDecoder(UNETRDecoder):
    """The decoder with its volumes channels-last, from the image and the tokens on."""

    def forward(self, image: Tensor, taps: list[Tensor]) -> Tensor:
        """See `UNETRDecoder.forward`."""
        return super().forward(image.contiguous(memory_format=torch.channels_last_3d), taps)

    def _volume(self, tokens: Tensor) -> Tensor:
        """(B, N, hidden) -> (B, hidden, H / 16, W / 16, D / 16), channels-last as tokens are."""
        return tokens.reshape(-1, *self.grid, tokens.shape[2]).permute(0, 4, 1, 2, 3)
