"""Parameter counts, and the paper's Table 2 beside them.

The paper's trainable counts are reproduced to 0.01 M. Its LoRA totals are not the number of
parameters of the network: HF peft marks one adapter as trainable and the other C - 1 as not, so
adding "trainable" (all C adapters, summed by hand) and "non-trainable" (base + C - 1 adapters)
counts C - 1 adapters twice. `reconcile` repeats that arithmetic, to show that it gives the cells.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from lora_ext.networks.regimes import parameter_parts

if TYPE_CHECKING:
    from lora_ext.networks.channel_network import ChannelNetwork


@dataclass(frozen=True)
class ParameterReport:
    """Parameter counts of one network.

    Attributes:
        encoder: the shared single-channel ViT without adapters.
        fusion: the four fusion layers.
        decoder: the convolutional decoder.
        adapters: all channel-wise adapters.
        trainable: those with ``requires_grad``.
    """

    encoder: int
    fusion: int
    decoder: int
    adapters: int
    trainable: int

    @property
    def total(self) -> int:
        """All parameters, each counted once."""
        return self.encoder + self.fusion + self.decoder + self.adapters

    def as_dict(self) -> dict[str, int]:
        """The counts with the sums that Table 2 shows."""
        return {
            **asdict(self),
            "fusion_decoder": self.fusion + self.decoder,
            "total": self.total,
            "non_trainable": self.total - self.trainable,
        }

    def __str__(self) -> str:
        """One aligned line per count."""
        return "\n".join(f"{name:>14} {count:>13,}" for name, count in self.as_dict().items())


def parameter_report(network: ChannelNetwork) -> ParameterReport:
    """Count a network's parameters by part, each once, whatever adapter is active."""
    parts = parameter_parts(network)
    counts = {part: sum(p.numel() for p in parameters) for part, parameters in parts.items()}
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return ParameterReport(**counts, trainable=trainable)


# Table 2 of the paper, in millions: total, trainable, non-trainable. It fits BraTS (4 channels,
# 3 regions); the paper gives no such table for ProstateX.
PAPER_TABLE_2 = {
    "brats_baseline": (142.89, 142.89, 0.0),
    "brats_finetune": (142.9, 142.9, 0.0),
    "brats_frozen": (142.9, 54.58, 88.32),
    "brats_lora16": (150.13, 58.71, 91.42),
    "brats_lora32": (157.35, 62.84, 94.52),
    "brats_lora64": (171.81, 71.09, 100.72),
}


def reconcile(report: ParameterReport, channels: int) -> dict[str, int]:
    """Repeat the paper's count of a LoRA network: all adapters train, C - 1 also do not.

    Args:
        report: the true counts.
        channels: number of image channels C, that is of adapters.

    Returns:
        ``total``, ``trainable`` and ``non_trainable`` as peft's counters give them; for a network
        without adapters these are the true counts.
    """
    inactive = report.adapters // channels * (channels - 1)
    non_trainable = report.total - report.trainable + inactive
    return {
        "total": report.trainable + non_trainable,
        "trainable": report.trainable,
        "non_trainable": non_trainable,
    }
