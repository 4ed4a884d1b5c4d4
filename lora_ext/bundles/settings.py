"""Every setting of the bundles: its type, what it may be, its unit and what it does.

A setting is a key at the top of a bundle's configs, and by that also a flag. This list is the one
source of the check at the start of a run, of `settings_tables` and of the tests that look for a
forgotten one. It needs the standard library alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_ext.bundles.allowed import (
    ANY,
    ARTICLE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    TRUTH,
    TYPES,
    Allowed,
    anything,
    are_axes,
    are_heads,
    are_names,
    are_regions,
    are_some,
    are_stages,
    are_targets,
    are_volumes,
    at_least,
    is_device,
    is_integer,
    is_intensity,
    is_roi,
    is_spacing,
    is_window,
    one_of,
    unlisted,
)

SEGMENTATION, PRETRAINING = "segmentation", "pretraining"
KINDS = (SEGMENTATION, PRETRAINING)
TRAIN, INFERENCE = "train", "inference"
BOTH = (TRAIN, INFERENCE)
SEGMENTING = f"{SEGMENTATION} {INFERENCE}"  # the inference that writes segmentations
_SEG, _PRE = (SEGMENTATION,), (PRETRAINING,)
UNETR, SWIN = "unetr", "swin_unetr"  # backbones


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: the key, and the flag without its dashes.
        type: a key of `TYPES`; with ``or null`` where there may be none.
        allowed: the values it may have; with the unit of a number.
        meaning: what it does.
        kinds: the kinds of bundles that have it.
        configs: the configs that have it, or a kind and its config; ``train`` stands for
            evaluation too.
        recorded: the record of a model keeps it, and what uses the model takes it from there.
        also: other spellings that people try.
        backbone: the backbone that alone takes it.
    """

    name: str
    type: str
    allowed: Allowed
    meaning: str
    kinds: tuple[str, ...] = KINDS
    configs: tuple[str, ...] = (TRAIN,)
    recorded: bool = False
    also: tuple[str, ...] = ()
    backbone: str | None = None

    def check(self, value: Any, where: str = "") -> None:
        """Refuse a value of another type or out of range.

        Args:
            value: what was given.
            where: what the error calls the place of the value; by default the flag.

        Raises:
            ValueError: for such a value.
        """
        null = self.type.endswith(" or null")
        if null and value is None:
            return
        kind = self.type.removesuffix(" or null")
        if TYPES[kind](value) and self.allowed.fits(value):
            return
        words = f"{ARTICLE[kind]} {kind}{' or null' if null else ''}, {self.allowed.words}"
        raise ValueError(
            f"{where or '--' + self.name}: expected {words.replace('`', '')}; got {value!r}"
        )


SETTINGS = (
    Setting("bundle_root", "folder", Allowed("the bundle's folder", anything),
            "found from the config file", KINDS, BOTH),
    Setting("dataset_dir", "folder", Allowed("a data set", anything),
            "the data; phantoms are written to the default folder where it is absent", KINDS, BOTH,
            also=("data_dir", "data", "dataset", "data_path", "data_root", "datadir", "datalist",
                  "input_dir", "input", "images")),
    Setting("output_dir", "folder", ANY, "reports, pictures, TensorBoard files, segmentations",
            KINDS, BOTH, also=("out", "output", "out_dir", "save_dir", "log_dir")),
    Setting("ckpt_dir", "folder or list", ANY, "the models; for segmentations also folders, as a "
            "list or a pattern such as `models/fold*`, whose models' probabilities are averaged",
            KINDS, BOTH,
            also=("models", "model_dir", "checkpoint", "checkpoint_dir", "ckpt", "model")),
    Setting("device", "device", Allowed("`cpu`, `cuda`, `cuda:1`, ..., one that is there",
            is_device), "where the network runs; a GPU where there is one", KINDS, BOTH,
            also=("gpu", "cuda")),
    Setting("seed", "integer", Allowed("0 to 2^32 - 1", lambda value: 0 <= value < 2**32),
            "seeds the run: weights, crops, order", also=("random_seed", "manual_seed")),
    Setting("split_seed", "integer", at_least(0), "seeds the folds, and nothing else",
            recorded=True),
    Setting("fold", "integer", Allowed("0 to `num_folds` - 1", lambda value: value >= 0),
            "the fold that validates", recorded=True, also=("folds",)),
    Setting("num_folds", "integer", at_least(2), "number of folds", recorded=True,
            also=("n_folds", "k")),
    Setting("training_cases", "integer or null", at_least(1), "keeps that many of the fold's "
            "training cases; null keeps all", _SEG, also=("num_cases", "cases", "n_train")),
    Setting("modalities", "list", Allowed("names in the data set", are_names), "the image "
            "channels, in the network's order", _SEG, BOTH, recorded=True,
            also=("channels", "sequences", "modality", "in_channels")),
    Setting("regions", "mapping", Allowed("name to a list of labels", are_regions), "the "
            "regions to segment, in the network's order", _SEG, BOTH, recorded=True,
            also=("labels", "classes", "out_channels")),
    Setting("resample_channels", "boolean", TRUTH, "brings a case's other files onto the grid of "
            "its first one, linearly, where they differ; only if the patient lay still between "
            "them", _SEG, BOTH, recorded=True, also=("resample", "resample_to_first")),
    Setting("nan_to_num", "boolean", TRUTH, "reads voxels that are no number as 0", KINDS, BOTH,
            recorded=True, also=("nan_to_zero", "replace_nan")),
    Setting("intensity", "text or mapping", Allowed("`auto`, `mr`, `ct`, `pet`, or channel to one "
            "of them", is_intensity), "what a channel's values are, and so how they are "
            "normalised; auto goes by its name", KINDS, BOTH, recorded=True,
            also=("normalization", "normalisation", "normalize", "normalise")),
    Setting("ct_window", "list", Allowed("two rising numbers, HU", is_window), "what CT is "
            "clipped to", KINDS, BOTH, recorded=True, also=("window", "hu_window", "clip")),
    Setting("pet_window", "list", Allowed("two rising numbers, SUV or the file's unit",
            is_window), "what PET is clipped to", KINDS, BOTH, recorded=True,
            also=("suv_window", "suv_max")),
    Setting("spacing", "list", Allowed("three numbers above 0, mm", is_spacing), "voxel size "
            "that images are resampled to; in pre-training 0, 0, 0 keeps each volume's own", KINDS,
            BOTH, recorded=True, also=("pixdim", "voxel_size")),
    Setting("roi_size", "list", Allowed("three multiples of 16 (of 32 for `swin_unetr`), voxels",
            is_roi), "size of a crop, and of a sliding window", KINDS, BOTH, recorded=True,
            also=("img_size", "patch_size", "crop_size", "size", "roi")),
    Setting("epochs", "integer", at_least(1), "epochs of training",
            also=("max_epochs", "num_epochs", "n_epochs")),
    Setting("val_interval", "integer", at_least(1, "epochs"), "epochs between two validations",
            also=("val_every", "validation_interval")),
    Setting("batch_size", "integer", at_least(1, "cases"), "cases in a step",
            also=("batch", "bs")),
    Setting("crops_per_case", "integer", at_least(1), "crops that a step takes of each case",
            also=("num_samples", "crops")),
    Setting("num_workers", "integer", at_least(0), "processes that read data", KINDS, BOTH,
            also=("workers", "n_workers")),
    Setting("cache_rate", "number", Allowed("0 to 1", lambda value: 0 <= value <= 1), "share of "
            "preprocessed cases that stays in memory", also=("cache",)),
    Setting("learning_rate", "number", POSITIVE, "largest rate of the schedule",
            also=("lr", "max_lr")),
    Setting("encoder_learning_rate", "number or null", NOT_NEGATIVE, "that of a "
            "pre-trained encoder which is trained (`finetune`); null for the same", _SEG,
            also=("encoder_lr",)),
    Setting("warmup_epochs", "integer or null", at_least(0), "epochs in which the rate rises, "
            "before it falls; null for a tenth of all", _PRE, also=("warmup", "warm_up")),
    Setting("weight_decay", "number", NOT_NEGATIVE, "weight decay of AdamW, on weights but not "
            "on biases and norms", _PRE),
    Setting("amp", "boolean", TRUTH, "bfloat16 where the device is faster in it", KINDS, BOTH,
            also=("fp16", "bf16", "mixed_precision")),
    Setting("acceleration", "text", one_of("auto", "on", "off"), "faster blocks with the same "
            "numbers; auto uses them on devices on which they were measured (the CPU)", KINDS, BOTH,
            also=("accelerate",)),
    Setting("compile", "boolean", TRUTH, "`torch.compile`, where it works"),
    Setting("activation_checkpointing", "boolean", TRUTH, "less memory, more time", _SEG,
            also=("gradient_checkpointing", "recompute")),
    Setting("pretrained", "text or null", Allowed("a file, `hf://owner/name/file[@revision]`, "
            "`https://...#sha256=...`, `none`", lambda value: value != ""),
            "the encoder to start from, which sets the sizes of the network's; null looks for "
            "`models/encoder.safetensors` here and in the neighbouring `mae_pretrain`", _SEG,
            also=("encoder", "pretrained_encoder", "weights", "pretrain")),
    Setting("resume", "boolean", TRUTH, "resume an interrupted run: training from `last.ckpt`, "
            "inference at the cases without a segmentation", KINDS, (TRAIN, SEGMENTING),
            also=("continue", "restart")),
    Setting("overwrite", "boolean", TRUTH, "replace the model, or the segmentations, that are "
            "there", KINDS, (TRAIN, SEGMENTING), also=("force", "replace")),
    Setting("regime", "text", one_of("baseline", "finetune", "frozen", "lora"), "what is trained",
            _SEG, BOTH, recorded=True),
    Setting("lora_rank", "integer", at_least(1), "rank of each adapter", _SEG, BOTH, recorded=True,
            also=("rank", "r", "lora_r")),
    Setting("lora_alpha", "number", POSITIVE, "numerator of the adapters' scale", _SEG, BOTH,
            recorded=True, also=("alpha",)),
    Setting("lora_scaling", "text", one_of("rank_stabilised", "classical"), "scale alpha / "
            "sqrt(rank) or alpha / rank", _SEG, BOTH, recorded=True, also=("scaling",)),
    Setting("lora_targets", "list", Allowed("of `qkv`, `out_proj`, `linear1`, `linear2`",
            are_targets), "linear layers with adapters", _SEG, BOTH, recorded=True,
            also=("targets", "target_modules")),
    Setting("modality_dropout", "number", SHARE, "probability of hiding a channel in training",
            _SEG, also=("channel_dropout",)),
    Setting("backbone", "text", one_of(UNETR, SWIN), "the encoder and decoder that the method is "
            "put on", _SEG, BOTH, recorded=True, also=("architecture", "arch", "network_name")),
    Setting("depths", "list", Allowed("four integers, 1 or more", are_stages), "transformer "
            "blocks of each stage (`swin_unetr` alone)", _SEG, BOTH, recorded=True, backbone=SWIN),
    Setting("use_v2", "boolean", TRUTH, "SwinUNETR-V2: a residual convolution before each stage, "
            "which VoCo's weights have (`swin_unetr` alone)", _SEG, BOTH, recorded=True,
            backbone=SWIN),
    Setting("feature_size", "integer or null", Allowed("1 or more; a multiple of 12 for "
            "`swin_unetr`", lambda value: value > 0), "features of the decoder's finest level; "
            "null for the backbone's own, 64 or 48", _SEG, BOTH, recorded=True),
    Setting("masking_ratio", "number", Allowed("between 0 and 1", lambda value: 0 < value < 1),
            "share of patches that are hidden", _PRE, BOTH, recorded=True, also=("mask_ratio",)),
    Setting("hidden_size", "integer", Allowed("a multiple of `num_heads`", lambda value: value > 0),
            "width of a token (`unetr` alone)", KINDS, BOTH, recorded=True,
            also=("embed_dim", "width"), backbone=UNETR),
    Setting("mlp_dim", "integer", at_least(1), "width of a block's MLP (`unetr` alone)", KINDS,
            BOTH, recorded=True, backbone=UNETR),
    Setting("num_layers", "integer", at_least(1), "transformer blocks (`unetr` alone)", KINDS,
            BOTH, recorded=True, also=("depth", "layers", "blocks"), backbone=UNETR),
    Setting("num_heads", "integer or list or null", Allowed("1 or more; for `swin_unetr` a list of "
            "four", are_heads), "attention heads per block; null for the backbone's own, 12 or "
            "[3, 6, 12, 24]", KINDS, BOTH, recorded=True, also=("heads",)),
    Setting("qkv_bias", "boolean", TRUTH, "whether queries, keys and values have a bias (`unetr` "
            "alone)", _SEG, BOTH, recorded=True, backbone=UNETR),
    Setting("num_prefix_tokens", "integer", at_least(0), "learnt tokens before those of the "
            "patches: class token, registers (`unetr` alone)", _SEG, BOTH, recorded=True,
            backbone=UNETR),
    Setting("norm_eps", "number", POSITIVE, "what the encoder's layer norms add to the variance "
            "(`unetr` alone)", _SEG, BOTH, recorded=True, backbone=UNETR),
    Setting("decoder_hidden_size", "integer", Allowed("a multiple of 6 and of `decoder_num_heads`",
            lambda value: value > 0), "width of a token of the decoder", _PRE, BOTH, recorded=True),
    Setting("decoder_mlp_dim", "integer", at_least(1), "width of a decoder block's MLP", _PRE,
            BOTH, recorded=True),
    Setting("decoder_num_layers", "integer", at_least(1), "decoder blocks", _PRE, BOTH,
            recorded=True),
    Setting("decoder_num_heads", "integer", at_least(1), "attention heads per decoder block", _PRE,
            BOTH, recorded=True),
    Setting("sw_batch_size", "integer", at_least(1), "sliding windows at a time", _SEG, BOTH),
    Setting("sw_overlap", "number", SHARE, "overlap of sliding windows, as a share", _SEG, BOTH,
            also=("overlap",)),
    Setting("mirror_axes", "list or empty list", Allowed("of 0, 1, 2, each once", are_axes),
            "axes that images are mirrored along, probabilities averaged, each doubling the time; "
            "0 is left-right, which makes sense for brains; [] for none", _SEG, (INFERENCE,),
            also=("tta", "mirroring", "flip_axes", "test_time_augmentation")),
    Setting("largest_component", "boolean or list", Allowed("True for all regions, or names of "
            "some", are_some), "keeps the largest connected part of these regions alone", _SEG,
            (INFERENCE,), also=("keep_largest", "largest_cc")),
    Setting("min_volume", "number or mapping", Allowed("0 or more, ml; or region to it",
            are_volumes), "removes connected parts of a region that are smaller", _SEG,
            (INFERENCE,), also=("min_size", "remove_small", "minimum_volume")),
    Setting("save_probabilities", "boolean", TRUTH, "writes each case's probabilities too, to "
            "`probabilities/` in `output_dir`: float32 NIfTI, a volume per region, before clean-up",
            _SEG, (INFERENCE,), also=("save_probs", "probabilities", "save_softmax")),
    Setting("output_ext", "text", one_of(".nii.gz", ".nrrd", ".mha", ".seg.nrrd", ".dcm"),
            "format of the segmentations; `.seg.nrrd` is 3D Slicer's, `.dcm` DICOM SEG, for cases "
            "that are DICOM series", _SEG, (INFERENCE,), also=("format", "extension",
            "file_ending")),
)  # fmt: skip
NAMED = {setting.name: setting for setting in SETTINGS}


def settings_of(kind: str, config: str | None = None) -> list[Setting]:
    """List the settings of a kind of bundle, in the order of its configs.

    Args:
        kind: ``segmentation`` or ``pretraining``.
        config: ``train`` or ``inference``; None for both.
    """
    own = [setting for setting in SETTINGS if kind in setting.kinds]
    return [s for s in own if config is None or {config, f"{kind} {config}"} & set(s.configs)]


def check_values(values: Mapping[str, Any], where: str = "") -> None:
    """Refuse settings of another type, out of range, or that do not go together.

    Args:
        values: settings by name; other names are let through.
        where: what errors call the place of the values; by default the flags.

    Raises:
        ValueError: for the first such setting, in one sentence.
    """
    for name in values.keys() & NAMED.keys():
        NAMED[name].check(values[name], f"{where}: {name}" if where else "")
    for name, other, fits, words in TOGETHER:
        if name in values and other in values and not fits(values[name], values[other]):
            raise ValueError(
                f"{where + ': ' if where else '--'}{name}: expected "
                f"{words.format(values[other])}; got {values[name]}"
            )


TOGETHER: tuple[tuple[str, str, Callable[[Any, Any], bool], str], ...] = (
    ("intensity", "modalities", lambda a, b: isinstance(a, str) or not unlisted(b, a),
     "one of auto, mr, ct, pet for each of the modalities, {}"),
    ("largest_component", "regions", lambda a, b: isinstance(a, bool) or set(a) <= set(b),
     "True, False or names of the regions, {}"),
    ("min_volume", "regions", lambda a, b: not isinstance(a, Mapping) or set(a) <= set(b),
     "a number, or names of the regions, {}"),
    ("fold", "num_folds", lambda a, b: a < b, "one below num_folds, {}"),
    ("warmup_epochs", "epochs", lambda a, b: a is None or a < b, "fewer than epochs, {}"),
    ("spacing", "regions", lambda a, b: all(a), "three numbers above 0 to segment the regions, {}"),
    ("roi_size", "backbone", lambda a, b: b != SWIN or _is_swin_roi(a), "multiples of 32, not all "
     "of them 32, for backbone {}, such as [128,128,64]"),
    ("feature_size", "backbone", lambda a, b: a is None or b != SWIN or a % 12 == 0,
     "a multiple of 12 for backbone {}"),
    ("num_heads", "backbone", lambda a, b: a is None or is_integer(a) == (b == UNETR),
     "one integer for backbone unetr, a list of four for swin_unetr, here {}"),
    ("num_heads", "decoder_num_heads", lambda a, b: is_integer(a), "an integer, as "
     "decoder_num_heads, {}"),
    ("hidden_size", "num_heads", lambda a, b: not is_integer(b) or a % b == 0,
     "a multiple of num_heads, {}"),
    ("decoder_hidden_size", "decoder_num_heads", lambda a, b: a % b == 0 and a % 6 == 0,
     "a multiple of 6 and of decoder_num_heads, {}"),
)  # fmt: skip


def _is_swin_roi(size: Sequence[int]) -> bool:
    return all(n % 32 == 0 for n in size) and any(n > 32 for n in size)
