"""The variants of an ablation: rank, scaling and placement of the adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lora_ext.bundles.generator import bundle_facts
from lora_ext.networks.lora import SCALINGS
from lora_ext.networks.regimes import get_regime
from lora_ext.study.plan import integers, words

RANKS = (4, 8, 16, 32, 64, 128)
PLACEMENTS = "out_proj,linear1;qkv,out_proj;qkv,out_proj,linear1,linear2"
PLACEMENT_RANK = 32  # the rank at which placements are compared
PLACEMENT_SCALING = "rank_stabilised"
TARGETS = ("qkv", "out_proj", "linear1", "linear2")  # linear layers of a transformer block
# Folder names of the placements that have a name.
PLACEMENT_NAMES = {("qkv", "out_proj"): "attention", TARGETS: "all_linears"}


@dataclass(frozen=True)
class Variant:
    """One choice of adapters.

    Attributes:
        rank: of every adapter.
        scaling: ``rank_stabilised`` or ``classical``.
        targets: the linear layers that have adapters, in the order of `TARGETS`.
        default: whether these are the bundle's own targets.
    """

    rank: int
    scaling: str
    targets: tuple[str, ...]
    default: bool

    @property
    def name(self) -> str:
        """The variant's folder, such as ``rank16_classical`` or ``rank32_attention``."""
        if self.default:
            return f"rank{self.rank}_{self.scaling}"
        return f"rank{self.rank}_{PLACEMENT_NAMES.get(self.targets, '-'.join(self.targets))}"

    @property
    def settings(self) -> dict[str, Any]:
        """The variant as settings of ``train.json``."""
        return {
            "lora_rank": self.rank,
            "lora_scaling": self.scaling,
            "lora_targets": list(self.targets),
        }


def plan_variants(bundle: str, ranks: Any, scalings: Any, placements: Any) -> list[Variant]:
    """Expand a request into variants, each once.

    Args:
        bundle: a bundle with adapters; the scalings are compared at its own placement.
        ranks: one or more ranks, each with every scaling.
        scalings: one or more of `SCALINGS`.
        placements: comma-separated linear layers, semicolons between placements, each compared at
            `PLACEMENT_RANK`, rank-stabilised; empty for none.

    Raises:
        ValueError: for a bundle without adapters, an unknown scaling or layer, or a rank below 1.
    """
    own = _order(_bundle_targets(bundle))
    found = integers("ranks", ranks)
    if min(found) < 1:
        raise ValueError(f"ranks: found {min(found)}; allowed are whole numbers from 1 on")
    names = words(scalings)
    unknown = [name for name in names if name not in SCALINGS]
    if unknown or not names:
        raise ValueError(f"scalings: found {scalings!r}; allowed are {', '.join(SCALINGS)}")
    variants = [Variant(rank, scaling, own, True) for rank in found for scaling in names]
    variants += [
        Variant(PLACEMENT_RANK, PLACEMENT_SCALING, targets, targets == own)
        for targets in map(_order, _split(placements))
    ]
    return list(dict.fromkeys(variants))


def _bundle_targets(bundle: str) -> list[str]:
    """The layers of a bundle's adapters."""
    facts = bundle_facts()
    fitting = [name for name, own in facts.items() if get_regime(own["regime"]).adapters]
    if bundle not in fitting:
        raise ValueError(f"bundle: found {bundle!r}; allowed are {', '.join(fitting)}")
    return facts[bundle]["lora_targets"]


def _split(placements: Any) -> list[list[str]]:
    """Placements as they come from the command line: text, or a tuple that fire made of it."""
    if isinstance(placements, (list, tuple)):
        placements = ",".join(map(str, placements))
    parts = str(placements or "").split(";")
    return [words(part) for part in parts if part.strip(" ,")]


def _order(targets: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in targets if name not in TARGETS]
    if unknown:
        raise ValueError(
            f"placements: found {', '.join(unknown)}; allowed are {', '.join(TARGETS)}"
        )
    return tuple(name for name in TARGETS if name in targets)
