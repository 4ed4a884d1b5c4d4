"""Self-attention of MONAI's transformer block, by the quicker of two ways on a CPU.

`scaled_dot_product_attention` never holds the attention matrix. On a CPU that saves nothing worth
having at a few hundred tokens, and its backward pass takes 2.5 times as long as the plain products'
(docs/performance.md); so they are used there, where a gradient is wanted.
"""

from __future__ import annotations

from monai.networks.blocks import SABlock
from torch import Tensor
from torch.nn import functional

MANY_TOKENS = 2048  # from here on the matrix is what costs, also on a CPU


class Attention(SABlock):
    """MONAI's self-attention block without dropout; its parameters and numbers."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Attend among the tokens (B, N, hidden) of each volume; the mask is SDPA's."""
        output = self.input_rearrange(self.qkv(x))
        query, key, value = output[0], output[1], output[2]
        if attn_mask is None and _plain_is_quicker(query):
            weights = (query @ key.transpose(-1, -2) * self.scale).softmax(dim=-1)
            mixed = weights.to(value.dtype) @ value
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask)
        return self.out_proj(self.out_rearrange(mixed))


def _plain_is_quicker(query: Tensor) -> bool:
    return query.device.type == "cpu" and query.requires_grad and query.shape[-2] < MANY_TOKENS
