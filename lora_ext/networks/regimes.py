"""The regimes of the paper (section 2.3): what each starts from and what each trains.

This table is the whole policy. A bundle's JSON only names a regime; nothing else decides what is
frozen, and nothing looks at parameter names.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from lora_ext.networks.lora import ChannelLoRALinear


@dataclass(frozen=True)
class Regime:
    """One row of the regime table.

    Attributes:
        pretrained: whether the encoder starts from a pre-trained ViT.
        adapters: whether the encoder carries channel-wise adapters.
        trained: the parts that are trained, out of ``encoder``, ``adapters``, ``fusion``,
            ``decoder``.
    """

    pretrained: bool
    adapters: bool
    trained: frozenset[str]


REGIMES = {
    "baseline": Regime(False, False, frozenset({"encoder", "fusion", "decoder"})),
    "finetune": Regime(True, False, frozenset({"encoder", "fusion", "decoder"})),
    "frozen": Regime(True, False, frozenset({"fusion", "decoder"})),
    "lora": Regime(True, True, frozenset({"adapters", "fusion", "decoder"})),
}


def get_regime(name: str) -> Regime:
    """Look a regime up by name.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in REGIMES:
        raise ValueError(f"unknown regime {name!r}; known are {list(REGIMES)}")
    return REGIMES[name]


def parameter_parts(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Sort a network's parameters into ``encoder``, ``adapters``, ``fusion`` and ``decoder``.

    Modules tell which of their parameters are adapters (``adapter_parameters``), so the encoder's
    part is what a plain single-channel ViT has.
    """
    encoder, fusion, decoder = map(network.get_submodule, ("encoder", "fusion", "decoder"))
    adapters = [
        p
        for module in encoder.modules()
        if isinstance(module, ChannelLoRALinear)
        for p in module.adapter_parameters()
    ]
    known = {id(p) for p in adapters}
    return {
        "encoder": [p for p in encoder.parameters() if id(p) not in known],
        "adapters": adapters,
        "fusion": list(fusion.parameters()),
        "decoder": list(decoder.parameters()),
    }


def apply_regime(network: nn.Module, regime: str) -> None:
    """Set ``requires_grad`` of every parameter as `regime` says.

    Raises:
        ValueError: for an unknown regime.
    """
    trained = get_regime(regime).trained
    for part, parameters in parameter_parts(network).items():
        for parameter in parameters:
            parameter.requires_grad_(part in trained)
