"""MONAI UNETR's convolutional decoder (Hatamizadeh et al. 2021): its blocks, names and wiring."""

# No `from __future__ import annotations` here: TorchScript reads the class annotations.
from collections.abc import Sequence

from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from torch import Tensor, nn

from lora_ext.networks.checkpointing import recompute as keep_inputs_only
from lora_ext.networks.encoder import PATCH_SIZE


class UNETRDecoder(nn.Module):
    """MONAI UNETR's decoder on four fused taps and the raw image.

    Args:
        in_channels: channels C of the raw image, for the first skip.
        out_channels: number of regions.
        img_size: size of the image in voxels.
        feature_size: channels of the finest convolutional level.
        hidden_size: width of a token.
        recompute: in training, keep the inputs of each block only.
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
        if recompute:
            for block in self.children():
                keep_inputs_only(block)

    def forward(self, image: Tensor, taps: list[Tensor]) -> Tensor:
        """Decode four fused taps (B, N, hidden) and the image (B, C, H, W, D) to logits."""
        coarse = self.decoder5(self._volume(taps[3]), self.encoder4(self._volume(taps[2])))
        middle = self.decoder4(coarse, self.encoder3(self._volume(taps[1])))
        fine = self.decoder3(middle, self.encoder2(self._volume(taps[0])))
        return self.out(self.decoder2(fine, self.encoder1(image)))

    def _volume(self, tokens: Tensor) -> Tensor:
        """(B, N, hidden) -> (B, hidden, H / 16, W / 16, D / 16), contiguous as MONAI has it."""
        shape = [tokens.shape[0]] + self.grid + [tokens.shape[2]]  # noqa: RUF005 (TorchScript)
        return tokens.reshape(shape).permute(0, 4, 1, 2, 3).contiguous()


def _lift(hidden_size: int, out_channels: int, num_layer: int) -> UnetrPrUpBlock:
    return UnetrPrUpBlock(
        3, hidden_size, out_channels, num_layer=num_layer, kernel_size=3, stride=1,
        upsample_kernel_size=2, norm_name="instance", conv_block=True, res_block=True,
    )  # fmt: skip


def _merge(in_channels: int, out_channels: int) -> UnetrUpBlock:
    return UnetrUpBlock(
        3, in_channels, out_channels, kernel_size=3, upsample_kernel_size=2,
        norm_name="instance", res_block=True,
    )  # fmt: skip
