"""Every setting of the bundles: its type, what it may be, its unit and what it does.

A setting is a key at the top of a bundle's configs, and by that also a flag. This list is the one
source of the table in each bundle's README and of the tests that look for a forgotten one. It needs
the standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SEGMENTATION, PRETRAINING = "segmentation", "pretraining"
KINDS = (SEGMENTATION, PRETRAINING)
TRAIN, INFERENCE = "train", "inference"


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: the key, and the flag without its dashes.
        type: ``text``, ``folder``, ``integer``, ``number``, ``boolean``, ``list`` or ``mapping``;
            with ``or null`` where there may be none.
        allowed: the values it may have, in words; with the unit of a number.
        meaning: what it does.
        kinds: the kinds of bundles that have it.
        configs: the configs that have it, or a kind and its config; ``train`` stands for
            evaluation too.
    """

    name: str
    type: str
    allowed: str
    meaning: str
    kinds: tuple[str, ...] = KINDS
    configs: tuple[str, ...] = (TRAIN,)


BOTH = (TRAIN, INFERENCE)
SEGMENTING = f"{SEGMENTATION} {INFERENCE}"  # inference of that kind of bundle alone
_SEG, _PRE = (SEGMENTATION,), (PRETRAINING,)

SETTINGS = (
    Setting("bundle_root", "folder", "the bundle's folder", "found from the config file", KINDS,
            BOTH),
    Setting("dataset_dir", "folder", "a data set", "the data; phantoms are written to the default "
            "folder where it is absent", KINDS, BOTH),
    Setting("output_dir", "folder", "any", "reports, pictures, TensorBoard files, segmentations",
            KINDS, BOTH),
    Setting("ckpt_dir", "folder", "any", "the models", KINDS, BOTH),
    Setting("device", "text", "`cpu`, `cuda`, `cuda:1`, ...", "where the network runs; a GPU where "
            "there is one", KINDS, BOTH),
    Setting("seed", "integer", "0 or more", "seeds the run: weights, crops, order"),
    Setting("split_seed", "integer", "0 or more", "seeds the folds, and nothing else"),
    Setting("fold", "integer", "0 to `num_folds` - 1", "the fold that validates"),
    Setting("num_folds", "integer", "2 or more", "number of folds"),
    Setting("training_cases", "integer or null", "1 or more", "keeps that many of the fold's "
            "training cases; null keeps all", _SEG),
    Setting("intensity", "text", "`auto`, `mr`, `ct`", "how a volume's intensities are normalised",
            _PRE, BOTH),
    Setting("modalities", "list", "names in the data set", "the image channels, in the network's "
            "order", _SEG, BOTH),
    Setting("regions", "mapping", "name to labels", "the regions to segment, in the network's "
            "order", _SEG, BOTH),
    Setting("spacing", "list", "three numbers, mm", "voxel size that images are resampled to",
            KINDS, BOTH),
    Setting("roi_size", "list", "three multiples of 16, voxels", "size of a crop, and of a sliding "
            "window", KINDS, BOTH),
    Setting("epochs", "integer", "1 or more", "epochs of training"),
    Setting("val_interval", "integer", "1 or more, epochs", "epochs between two validations"),
    Setting("batch_size", "integer", "1 or more, cases", "cases in a step"),
    Setting("crops_per_case", "integer", "1 or more", "crops that a step takes of each case"),
    Setting("num_workers", "integer", "0 or more", "processes that read data", KINDS, BOTH),
    Setting("cache_rate", "number", "0 to 1", "share of preprocessed cases that stays in memory"),
    Setting("learning_rate", "number", "above 0", "largest rate of the one-cycle schedule"),
    Setting("encoder_learning_rate", "number or null", "0 or more", "that of a pre-trained encoder "
            "which is trained (`finetune`); null for the same", _SEG),
    Setting("weight_decay", "number", "0 or more", "weight decay of AdamW", _PRE),
    Setting("amp", "boolean", "true, false", "bfloat16 where the device is faster in it", KINDS,
            BOTH),
    Setting("acceleration", "text", "`auto`, `on`, `off`", "faster blocks with the same numbers; "
            "auto uses them on devices on which they were measured (the CPU)", KINDS, BOTH),
    Setting("compile", "boolean", "true, false", "`torch.compile`, where it works"),
    Setting("activation_checkpointing", "boolean", "true, false", "less memory, more time", _SEG),
    Setting("pretrained", "text or null", "a file, `none`", "the encoder to start from; null looks "
            "for `models/encoder.safetensors` here and in the neighbouring `mae_pretrain`", _SEG),
    Setting("resume", "boolean", "true, false", "go on with an interrupted run: from `last.ckpt`, "
            "or with the cases that have no segmentation yet", KINDS, (TRAIN, SEGMENTING)),
    Setting("overwrite", "boolean", "true, false", "replace the model, or the segmentations, that "
            "are there", KINDS, (TRAIN, SEGMENTING)),
    Setting("regime", "text", "`baseline`, `finetune`, `frozen`, `lora`", "what is trained", _SEG,
            BOTH),
    Setting("lora_rank", "integer", "1 or more", "rank of each adapter", _SEG, BOTH),
    Setting("lora_alpha", "number", "above 0", "numerator of the adapters' scale", _SEG, BOTH),
    Setting("lora_scaling", "text", "`rank_stabilised`, `classical`", "scale alpha / sqrt(rank) or "
            "alpha / rank", _SEG, BOTH),
    Setting("lora_targets", "list", "of `qkv`, `out_proj`, `linear1`, `linear2`", "linear layers "
            "with adapters", _SEG, BOTH),
    Setting("modality_dropout", "number", "0 to below 1", "probability of hiding a channel in "
            "training", _SEG),
    Setting("feature_size", "integer", "1 or more", "features of the decoder's finest level", _SEG,
            BOTH),
    Setting("masking_ratio", "number", "between 0 and 1", "share of patches that are hidden", _PRE,
            BOTH),
    Setting("hidden_size", "integer", "a multiple of `num_heads`", "width of a token", KINDS, BOTH),
    Setting("mlp_dim", "integer", "1 or more", "width of a block's MLP", KINDS, BOTH),
    Setting("num_layers", "integer", "1 or more", "transformer blocks", KINDS, BOTH),
    Setting("num_heads", "integer", "1 or more", "attention heads per block", KINDS, BOTH),
    Setting("decoder_hidden_size", "integer", "a multiple of 6 and of `decoder_num_heads`",
            "width of a token of the decoder", _PRE, BOTH),
    Setting("decoder_mlp_dim", "integer", "1 or more", "width of a decoder block's MLP", _PRE,
            BOTH),
    Setting("decoder_num_layers", "integer", "1 or more", "decoder blocks", _PRE, BOTH),
    Setting("decoder_num_heads", "integer", "1 or more", "attention heads per decoder block", _PRE,
            BOTH),
    Setting("sw_batch_size", "integer", "1 or more", "sliding windows at a time", _SEG, BOTH),
    Setting("sw_overlap", "number", "0 to below 1", "overlap of sliding windows, as a share", _SEG,
            BOTH),
    Setting("output_ext", "text", "`.nii.gz`, `.nrrd`, `.mha`", "format of the segmentations",
            _SEG, (INFERENCE,)),
)  # fmt: skip


def settings_of(kind: str, config: str | None = None) -> list[Setting]:
    """List the settings of a kind of bundle, in the order of its configs.

    Args:
        kind: ``segmentation`` or ``pretraining``.
        config: ``train`` or ``inference``; None for both.
    """
    own = [setting for setting in SETTINGS if kind in setting.kinds]
    return [s for s in own if config is None or {config, f"{kind} {config}"} & set(s.configs)]


def settings_table(kind: str, defaults: dict[str, Any]) -> str:
    """Lay the settings of a kind of bundle out as a Markdown table.

    Args:
        kind: ``segmentation`` or ``pretraining``.
        defaults: values by name; a setting without one is found at the start.
    """
    rows = [
        (f"`{s.name}`", _default(s.name, defaults), s.type, s.allowed, _meaning(s))
        for s in settings_of(kind)
    ]
    return "\n".join(_row(row) for row in (("Setting", "Default", "Type", "Allowed", "Meaning"),
                                           ("---",) * 5, *rows))  # fmt: skip


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _default(name: str, defaults: dict[str, Any]) -> str:
    if name not in defaults:
        return ""
    value = defaults[name]
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _meaning(setting: Setting) -> str:
    return setting.meaning + (" (inference)" if setting.configs == (INFERENCE,) else "")
