"""The shared single-channel ViT: every image channel is encoded on its own, by the same weights.

The channels are folded into the batch, see `channels`::

    image (B, C, H, W, D) -> fold -> (C * B, 1, H, W, D) -> ViT -> 4 taps, each (B, C, N, hidden)
"""

# No `from __future__ import annotations` here: TorchScript reads the class annotations.
from collections.abc import Sequence

import torch
from monai.networks.nets import ViT
from torch import Tensor, nn

from lora_ext.networks.channels import SharedEncoder, check_channel_names
from lora_ext.networks.checkpointing import recompute as keep_inputs_only

PATCH_SIZE = 16  # voxels along each axis (paper section 2.2: ViT-Base, patches of 16^3)


class ChannelEncoder(SharedEncoder, ViT):
    """MONAI's ViT on one-channel volumes, shared by all channels of the image.

    Its keys are MONAI's (``patch_embedding.*``, ``blocks.*``, ``norm.*``), without the
    ``norm_cross_attn`` tensors that MONAI 1.6.1 creates and never uses: they get no gradient,
    break default DDP and falsify parameter counts.

    A ViT that was pre-trained with a class token or registers attends to them, so without them it
    would compute something else. They are kept as ``prefix_tokens``, put before the patches' tokens
    of every channel, and dropped at the taps.

    Args:
        channel_names: one name per image channel, such as ``("FLAIR", "T1w")``.
        img_size: size of the input volume in voxels.
        hidden_size: width of a token.
        mlp_dim: width of the MLP's hidden layer.
        num_layers: number of transformer blocks.
        num_heads: attention heads per block.
        qkv_bias: whether queries, keys and values have a bias.
        num_prefix_tokens: number of learnt tokens before the patches' (class token, registers).
        norm_eps: what the layer norms add to the variance.
        recompute: in training, keep no activations inside the blocks.

    Raises:
        ValueError: if the names repeat, `img_size` is not made of whole patches, `hidden_size`
            is not a multiple of `num_heads`, `num_prefix_tokens` is below 0, or `norm_eps` is not
            above 0.
    """

    taps: list[int]
    num_prefix_tokens: int

    def __init__(
        self,
        channel_names: Sequence[str],
        img_size: Sequence[int],
        *,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_layers: int = 12,
        num_heads: int = 12,
        qkv_bias: bool = False,
        num_prefix_tokens: int = 0,
        norm_eps: float = 1e-5,
        recompute: bool = False,
    ) -> None:
        _check_sizes(channel_names, img_size, hidden_size, num_layers, num_heads)
        _check_form(num_prefix_tokens, norm_eps)
        super().__init__(
            in_channels=1,
            img_size=img_size,
            patch_size=PATCH_SIZE,
            hidden_size=hidden_size,
            mlp_dim=mlp_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            qkv_bias=qkv_bias,
        )
        self.share(channel_names, img_size, [hidden_size] * 4)
        # MONAI UNETR's skips 3, 6 and 9 of 12, at any depth; the normed output is the fourth tap.
        self.taps = [k * num_layers // 4 for k in (1, 2, 3)]
        self.num_prefix_tokens = num_prefix_tokens
        self.register_parameter("prefix_tokens", None)  # a plain ViT has no such key
        if num_prefix_tokens:
            self.prefix_tokens = nn.Parameter(torch.empty(1, num_prefix_tokens, hidden_size))
            nn.init.trunc_normal_(self.prefix_tokens, std=0.02)
        for norm in self.modules():
            if isinstance(norm, nn.LayerNorm):
                norm.eps = norm_eps
        for block in self.blocks:
            block.norm_cross_attn = nn.Identity()
            # MONAI's own switch for scaled_dot_product_attention
            block.attn.use_flash_attention = True  # type: ignore[union-attr]
            if recompute:
                keep_inputs_only(block)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Encode every channel of an image with the shared weights and its own adapters.

        Args:
            x: image, shape (B, C, H, W, D), with the active channels in their order.

        Returns:
            The four taps (three blocks and the normed output), each (B, C, N, hidden_size), where
            N is the number of patches.

        Raises:
            ValueError: if `x` has another number of channels or another size.
        """
        batch = x.shape[0]
        tokens = self.patch_embedding(self.fold(x))
        if self.prefix_tokens is not None:
            tokens = torch.cat([self.prefix_tokens.expand(len(tokens), -1, -1), tokens], dim=1)
        hidden: list[Tensor] = []
        for block in self.blocks:
            tokens = block(tokens)
            hidden.append(tokens)
        outputs = [hidden[tap] for tap in self.taps]
        outputs.append(self.norm(tokens))
        if self.prefix_tokens is not None:
            outputs = [tap[:, self.num_prefix_tokens :] for tap in outputs]
        return [self.unfold(tap, batch) for tap in outputs]


def _check_sizes(
    channel_names: Sequence[str],
    img_size: Sequence[int],
    hidden_size: int,
    num_layers: int,
    num_heads: int,
) -> None:
    check_channel_names(channel_names)
    sizes = list(img_size)
    if len(sizes) != 3 or any(s < PATCH_SIZE or s % PATCH_SIZE for s in sizes):
        raise ValueError(f"img_size must be three multiples of {PATCH_SIZE} voxels; got {sizes}")
    if num_layers < 1 or num_heads < 1 or hidden_size < 1 or hidden_size % num_heads:
        raise ValueError(
            "num_layers must be at least 1 and hidden_size a multiple of num_heads; got "
            f"num_layers={num_layers}, hidden_size={hidden_size}, num_heads={num_heads}"
        )


def _check_form(num_prefix_tokens: int, norm_eps: float) -> None:
    if num_prefix_tokens < 0 or not norm_eps > 0:
        raise ValueError(
            "num_prefix_tokens must be 0 or more and norm_eps above 0; got "
            f"num_prefix_tokens={num_prefix_tokens}, norm_eps={norm_eps}"
        )
