"""What the paper reports: Table 1's cells, its order of regimes, and what they are called.

Table 2's cells are in `lora_ext.networks.parameters`.
"""

from __future__ import annotations

from lora_ext.bundles.generator import DATASETS, REGIMES

PAPER = "Dutta et al., under review for MIDL 2025"
_REGIME_TITLES = ("Baseline", "Finetune", "Frozen", "LoRA-16", "LoRA-32", "LoRA-64")
TITLES = {
    **dict(zip(DATASETS, ("BraTS", "ProstateX"), strict=True)),
    **dict(zip(REGIMES, _REGIME_TITLES, strict=True)),
    **{"segresnet": "SegResNet", "dynunet": "DynUNet", "unetr": "UNETR"},
    **{"mean_dice": "Mean of regions", "pooled_dice": "Pooled"},
}

# Dice by data set and row, one value per regime in the order of REGIMES. The paper's "Overall" is
# not the mean of its regions (0.793 for BraTS' baseline); it fits a Dice pooled over all voxels.
_TABLE_1 = {
    "brats": {
        "TC": (0.8325, 0.8482, 0.8149, 0.8284, 0.8376, 0.8128),
        "WT": (0.8873, 0.8998, 0.8932, 0.8918, 0.8941, 0.8894),
        "ET": (0.6593, 0.6651, 0.6342, 0.6482, 0.6491, 0.6316),
        "pooled_dice": (0.8546, 0.8693, 0.8562, 0.8564, 0.8602, 0.8499),
    },
    "prostatex": {
        "PZ": (0.5412, 0.5958, 0.5284, 0.5645, 0.5877, 0.5669),
        "TZ": (0.7226, 0.7364, 0.7164, 0.6967, 0.7167, 0.7314),
        "pooled_dice": (0.6369, 0.6661, 0.6224, 0.6452, 0.6522, 0.6492),
    },
}
PAPER_TABLE_1 = {
    dataset: {row: dict(zip(REGIMES, cells, strict=True)) for row, cells in rows.items()}
    for dataset, rows in _TABLE_1.items()
}

# The encoder at the paper's size, a ViT-Base on single-channel patches of 16 x 16 x 16 voxels
# with 192 tokens. Another count in a run means that it is not the paper's network.
PAPER_ENCODER_PARAMETERS = 88_322_304


def title(name: str) -> str:
    """Return what a data set, a regime, a network or a measure is called; else the name itself."""
    return TITLES.get(name, name)
