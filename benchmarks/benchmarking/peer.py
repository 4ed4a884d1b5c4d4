"""The peer: what users write themselves, MONAI's ViT and UNETR blocks with HF peft in a loop."""

from __future__ import annotations

import copy

import peft
import torch
from monai.networks.nets import UNETR, ViT
from torch import Tensor, nn

from benchmarking.work import Sizes
from lora_ext import ChannelLoRAUNETR
from lora_ext.networks.lora import ChannelLoRALinear

TARGETS = ["out_proj", "linear1"]


class PeerEncoder(nn.Module):
    """One ViT for all channels; with a rank, one peft adapter per channel, switched in a loop.

    ``set_adapter`` turns the gradients of the other adapters off, and the backward pass then trains
    the last one alone; so they are turned on again at the end of the loop, as the correct form of
    this loop must do.
    """

    def __init__(self, sizes: Sizes, rank: int | None) -> None:
        super().__init__()
        vit = ViT(
            in_channels=1,
            img_size=sizes.roi,
            patch_size=16,
            num_layers=sizes.num_layers,
            **sizes.token_sizes,
        )
        self.taps = [k * sizes.num_layers // 4 for k in (1, 2, 3)]
        self.names = [f"channel{c}" for c in range(sizes.channels)]
        self.adapted = rank is not None
        self.vit = self._adapt(vit, rank) if rank is not None else vit

    def _adapt(self, vit: ViT, rank: int) -> nn.Module:
        config = peft.LoraConfig(r=rank, lora_alpha=8.0, use_rslora=True, target_modules=TARGETS)
        adapted = peft.get_peft_model(vit, config, adapter_name=self.names[0])
        for name in self.names[1:]:
            adapted.add_adapter(name, copy.deepcopy(config))
        return adapted

    def base(self) -> nn.Module:
        """Return the ViT below peft's wrapper."""
        return self.vit.base_model.model if self.adapted else self.vit

    def forward(self, x: Tensor) -> list[Tensor]:
        """Encode an image (B, C, H, W, D) to four lists of taps, each (B, C, N, hidden)."""
        outputs = []
        for index, name in enumerate(self.names):
            if self.adapted:
                self.vit.set_adapter(name)
            last, hidden = self.base()(x[:, index : index + 1])
            outputs.append([*(hidden[tap] for tap in self.taps), last])
        if self.adapted and torch.is_grad_enabled():
            for name, parameter in self.vit.named_parameters():
                parameter.requires_grad_("lora_" in name)
        return [torch.stack(taps, dim=1) for taps in zip(*outputs, strict=True)]


class Peer(nn.Module):
    """`ChannelLoRAUNETR` from MONAI's and peft's own parts.

    Args:
        sizes: as ours.
        rank: rank of the adapters; None trains everything and has none.
    """

    def __init__(self, sizes: Sizes, rank: int | None) -> None:
        super().__init__()
        self.encoder = PeerEncoder(sizes, rank)
        self.fusion = nn.ModuleList(
            nn.Linear(sizes.channels * sizes.hidden_size, sizes.hidden_size) for _ in range(4)
        )
        self.unetr = UNETR(
            in_channels=sizes.channels,
            out_channels=sizes.regions,
            img_size=sizes.roi,
            feature_size=sizes.feature_size,
            **sizes.token_sizes,
        )
        del self.unetr.vit
        self.grid = [size // 16 for size in sizes.roi]

    def forward(self, x: Tensor) -> Tensor:
        """Segment (B, C, H, W, D) to logits (B, regions, H, W, D), as MONAI's UNETR wires it."""
        taps = [
            self._volume(linear(tap.transpose(1, 2).flatten(2)))
            for linear, tap in zip(self.fusion, self.encoder(x), strict=True)
        ]
        net = self.unetr
        coarse = net.decoder5(taps[3], net.encoder4(taps[2]))
        middle = net.decoder4(coarse, net.encoder3(taps[1]))
        fine = net.decoder3(middle, net.encoder2(taps[0]))
        return net.out(net.decoder2(fine, net.encoder1(x)))

    def _volume(self, tokens: Tensor) -> Tensor:
        return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *self.grid)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return what an optimizer gets."""
        return [p for p in self.parameters() if p.requires_grad]


def peer_of(network: ChannelLoRAUNETR, sizes: Sizes, rank: int | None) -> Peer:
    """Build the peer with the weights of our network."""
    peer = Peer(sizes, rank)
    copied = network.encoder.state_dict()
    if rank is not None:
        for name, layer in network.encoder.named_modules():
            if isinstance(layer, ChannelLoRALinear):
                _copy_layer(layer, peer.encoder.base().get_submodule(name), peer.encoder.names)
                copied = {k: v for k, v in copied.items() if k.rpartition(".")[0] != name}
    unknown = peer.encoder.base().load_state_dict(copied, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"the peer's encoder does not have {unknown}")
    fusion = {k.removeprefix("linears."): v for k, v in network.fusion.state_dict().items()}
    peer.fusion.load_state_dict(fusion)
    peer.unetr.load_state_dict(network.decoder.state_dict())
    for name, parameter in peer.encoder.named_parameters():
        parameter.requires_grad_(rank is None or "lora_" in name)
    return peer


def _copy_layer(ours: ChannelLoRALinear, theirs: nn.Module, names: list[str]) -> None:
    theirs.base_layer.weight.data.copy_(ours.weight)
    if ours.bias is not None:
        theirs.base_layer.bias.data.copy_(ours.bias)
    for index, name in enumerate(names):
        theirs.lora_A[name].weight.data.copy_(ours.lora_A[index])
        theirs.lora_B[name].weight.data.copy_(ours.lora_B[index])
