"""MONAI UNETR's convolutional decoder (Hatamizadeh et al. 2021), computed with less work.

Blocks, names, wiring and numbers are MONAI's; only the order of the arithmetic is not. At the
paper's size the decoder is nine tenths of a training step, so it pays to

- keep volumes channels-last, which oneDNN and cuDNN take without reordering (in float32 on a CPU
  PyTorch itself leaves that layout for some convolutions),
- do norm, sum and activation in place of three passes (`lora_ext.instance_norm`),
- never make the upsampled volume that only a convolution reads (`lora_ext.upsampling`), nor its
  concatenation with the skip: ``conv([u, s]) = conv_u(u) + conv_s(s)``.

Exported networks (TorchScript, ONNX) hold the plain operations, in MONAI's order.
"""

# No `from __future__ import annotations` here: TorchScript reads the class annotations.
from collections.abc import Sequence
from typing import Optional

import torch
from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import Tensor, nn
from torch.nn import functional

from lora_ext.checkpointing import recomputed
from lora_ext.encoder import PATCH_SIZE
from lora_ext.instance_norm import instance_norm
from lora_ext.upsampling import composing_pays, convolve_upsampled


class ResidualBlock(UnetResBlock):
    """MONAI's residual block with instance norm, in fewer passes over memory.

    Attributes:
        recompute: in training, keep the block's inputs only (activation checkpointing).
    """

    recompute: bool = False

    def forward(self, inp: Tensor) -> Tensor:
        """Transform features (B, in_channels, H, W, D) to (B, out_channels, H, W, D)."""
        if not torch.jit.is_scripting():
            return recomputed(self._transform, inp) if self.recompute else self._transform(inp)
        return self._transform(inp)

    def _transform(self, inp: Tensor) -> Tensor:
        residual = inp
        if hasattr(self, "conv3"):  # the form that TorchScript takes
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
        run = self._transform_pair
        return recomputed(run, x, up, skip) if self.recompute else run(x, up, skip)

    def _transform_pair(self, x: Tensor, up: Tensor, skip: Tensor) -> Tensor:
        residual = instance_norm(
            _convolve_pair(self.conv3.conv.weight, x, up, skip), None, 1.0, True
        )
        inner = _normed(_convolve_pair(self.conv1.conv.weight, x, up, skip))
        return _normed(self.conv2(inner), residual)


def _normed(x: Tensor, residual: Optional[Tensor] = None) -> Tensor:  # noqa: UP045 (TorchScript)
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
        if not torch.jit.is_scripting():
            up, kernel = self.transp_conv.conv.weight, self.conv_block.conv1.conv.weight
            exporting = torch.jit.is_tracing() or torch.compiler.is_exporting()
            if not exporting and composing_pays(inp, up, kernel):
                return self.conv_block.forward_pair(inp, up, skip)  # type: ignore[operator]
        return self.conv_block(torch.cat((self.transp_conv(inp), skip), dim=1))


class UNETRDecoder(nn.Module):
    """MONAI UNETR's decoder: its blocks, names and wiring.

    Args:
        in_channels: channels C of the raw image, for the first skip.
        out_channels: number of regions.
        img_size: size of the image in voxels.
        feature_size: channels of the finest convolutional level.
        hidden_size: width of a token.
        recompute: in training, keep no activations inside the residual blocks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: Sequence[int],
        feature_size: int,
        hidden_size: int,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.grid = [size // PATCH_SIZE for size in img_size]
        self.encoder1 = UnetrBasicBlock(
            3, in_channels, feature_size, kernel_size=3, stride=1, norm_name="instance",
            res_block=True,
        )  # fmt: skip
        self.encoder2 = _lift(hidden_size, 2 * feature_size, 2)
        self.encoder3 = _lift(hidden_size, 4 * feature_size, 1)
        self.encoder4 = _lift(hidden_size, 8 * feature_size, 0)
        self.decoder5 = _merge(hidden_size, 8 * feature_size)
        self.decoder4 = _merge(8 * feature_size, 4 * feature_size)
        self.decoder3 = _merge(4 * feature_size, 2 * feature_size)
        self.decoder2 = _merge(2 * feature_size, feature_size)
        self.out = UnetOutBlock(3, feature_size, out_channels)
        for block in self.modules():
            if type(block) is UnetResBlock:  # MONAI's blocks make their inner blocks themselves
                block.__class__ = ResidualBlock
                block.recompute = recompute  # type: ignore[assignment]

    def forward(self, image: Tensor, taps: list[Tensor]) -> Tensor:
        """Decode four fused taps (B, N, hidden) and the image (B, C, H, W, D) to logits."""
        image = image.contiguous(memory_format=torch.channels_last_3d)
        coarse = self.decoder5(self._volume(taps[3]), self.encoder4(self._volume(taps[2])))
        middle = self.decoder4(coarse, self.encoder3(self._volume(taps[1])))
        fine = self.decoder3(middle, self.encoder2(self._volume(taps[0])))
        return self.out(self.decoder2(fine, self.encoder1(image)))

    def _volume(self, tokens: Tensor) -> Tensor:
        """(B, N, hidden) -> (B, hidden, H / 16, W / 16, D / 16), channels-last as tokens are."""
        shape = [tokens.shape[0]] + self.grid + [tokens.shape[2]]  # noqa: RUF005 (TorchScript)
        return tokens.reshape(shape).permute(0, 4, 1, 2, 3)


def _lift(hidden_size: int, out_channels: int, num_layer: int) -> UnetrPrUpBlock:
    return UnetrPrUpBlock(
        3, hidden_size, out_channels, num_layer=num_layer, kernel_size=3, stride=1,
        upsample_kernel_size=2, norm_name="instance", conv_block=True, res_block=True,
    )  # fmt: skip


def _merge(in_channels: int, out_channels: int) -> MergeBlock:
    return MergeBlock(
        3, in_channels, out_channels, kernel_size=3, upsample_kernel_size=2,
        norm_name="instance", res_block=True,
    )  # fmt: skip


__all__ = ["MergeBlock", "ResidualBlock", "UNETRDecoder"]
