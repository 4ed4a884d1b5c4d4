"""A pre-trained encoder as a repository for the Hugging Face hub: weights, config, model card."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lora_ext
from lora_ext.bundles.settings import NAMED, check_values
from lora_ext.files import make_folder, whole_file
from lora_ext.networks.config import PLAIN
from lora_ext.networks.encoder import PATCH_SIZE
from lora_ext.weights import read_record
from lora_ext.weights.encoder import EncoderFile, encoder_facts, read_encoder
from lora_ext.weights.record import MODEL
from lora_ext.weights.start import ENCODER

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
PREPARED = ("spacing", "intensity", "ct_window", "pet_window")  # how the volumes were prepared
TRAINED = ("masking_ratio", "epochs", "batch_size", "crops_per_case", "learning_rate",
           "warmup_epochs", "weight_decay")  # fmt: skip
UNKNOWN = "not recorded"
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>&<$:@/])")  # what Markdown, or its HTML, reads


def export_encoder(
    ckpt_dir: str | os.PathLike[str], out: str | os.PathLike[str], overwrite: bool = False
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and a model card from a pre-training's record.

    The card counts the volumes, but names none, since names of cases may be those of patients.

    Args:
        ckpt_dir: folder of ``encoder.safetensors``, and of ``model.pt`` with its record.
        out: the folder to write.
        overwrite: whether a card in `out`, whose licence somebody may have filled in, is replaced.

    Returns:
        The folder.

    Raises:
        ValueError: no encoder there, one that is no ViT of this package's layout, a record with a
            setting that cannot be, or a card in `out`.
    """
    source, folder = Path(ckpt_dir) / ENCODER, Path(out)
    if not source.is_file():
        raise ValueError(
            f"{source}: found no encoder; expected the --ckpt_dir of a mae_pretrain training, "
            f"which writes {ENCODER} at its best validation"
        )
    if (folder / CARD).exists() and not overwrite:
        raise ValueError(
            f"{folder / CARD}: found a model card, which may have been edited; give another --out, "
            "or --overwrite to replace it"
        )
    file = read_encoder(source, PLAIN)
    record = _checked(read_record(Path(ckpt_dir) / MODEL), Path(ckpt_dir) / MODEL)
    config = _config(file, record)
    make_folder(folder)
    with whole_file(folder / WEIGHTS) as draft:
        shutil.copyfile(source, draft)
    with whole_file(folder / CONFIG) as draft:
        draft.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    with whole_file(folder / CARD) as draft:
        draft.write_text(_card(config, record, encoder_facts(source)), encoding="utf-8")
    return folder


def _checked(record: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    check_values({name: record[name] for name in record if name in NAMED}, str(path))
    return record


def _config(file: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    sizes: EncoderFile = file  # a ViT was asked for
    return {
        "architecture": "ViT", "in_channels": 1, "patch_size": [PATCH_SIZE] * 3,
        "img_size": sizes.img_size, **sizes.arguments,
        **{name: record[name] for name in PREPARED if name in record},
        "lora_ext_version": lora_ext.__version__,
    }  # fmt: skip


def _card(config: Mapping[str, Any], record: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    sizes = {name: config.get(name) for name in ("img_size", "hidden_size", "mlp_dim", "num_layers",
                                                 "num_heads")}  # fmt: skip
    trained = {name: record.get(name) for name in TRAINED} | {"best epoch": facts.get("epoch")}
    versions = record.get("versions")
    return _TEXT.format(
        weights=WEIGHTS,
        sizes=_rows(sizes),
        prepared=_rows({name: record.get(name) for name in PREPARED}),
        trained=_rows(trained),
        data=_data(record),
        versions=_rows(versions if isinstance(versions, Mapping) else {}),
    )


def _data(record: Mapping[str, Any]) -> str:
    names, volumes = record.get("trained_on"), record.get("volumes")
    if not isinstance(names, list):
        return f"The number of volumes is {UNKNOWN}."
    text = f"{len(names)} volumes of one channel each; they are not named here."
    found = volumes if isinstance(volumes, Mapping) else {}
    if not found or not all(isinstance(count, Mapping) for count in found.values()):
        return text
    counts = "\n".join(
        f"| {escaped(name)} | {escaped(count.get('volumes'))} | {escaped(count.get('intensity'))} |"
        for name, count in found.items()
    )
    return f"{text}\n\n| modality | volumes | intensity |\n|---|---|---|\n{counts}"


def _rows(values: Mapping[str, Any]) -> str:
    rows = [f"| {escaped(name)} | {escaped(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def escaped(value: Any) -> str:
    """Write a value of a record so that Markdown shows it, on one line, and reads nothing in it.

    Args:
        value: as JSON holds it; None is `UNKNOWN`.
    """
    if value is None:
        return UNKNOWN
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    printable = "".join(c if c.isprintable() else " " for c in text)
    return _SPECIAL.sub(r"\\\1", printable)


_TEXT = """\
---
license: other
license_name: to-be-filled-in
library_name: lora_ext
pipeline_tag: image-feature-extraction
tags:
- medical
- 3d
- vit
- masked-autoencoder
- monai
---

# Single-channel 3D ViT encoder, pre-trained as a masked auto-encoder

> **Licence: to be filled in.** The licence of the volumes that an encoder was trained on applies to
> its weights, and no record says it. Name it here and in `license` above before you publish this.

The shared encoder of channel-wise LoRA UNETR (`lora_ext`): every channel of an image is encoded on
its own, as a volume of one channel. Pre-trained by hiding patches and predicting them (He et al.
2022, arXiv:2111.06377). Research code, not a medical device.

## How to load it

Replace `OWNER/NAME` by this repository's name. The sizes come from the file.

```
python -m monai.bundle run training --config_file bundles/brats_lora32/configs/train.json \\
    --dataset_dir DATA --pretrained hf://OWNER/NAME/{weights}
```

```python
from lora_ext import network_for_encoder

network = network_for_encoder(
    "hf://OWNER/NAME/{weights}", 4, 3, (128, 128, 48), regime="lora"
)
```

What it knows of your labels, before any fine-tuning:

```
python -m lora_ext probe --encoder hf://OWNER/NAME/{weights} --data LABELLED
```

## Sizes

{sizes}

## Data

{data}

## How volumes were prepared

Prepare yours the same way: the bundles' settings of these names.

{prepared}

## Training

{trained}

## Versions

{versions}
"""
