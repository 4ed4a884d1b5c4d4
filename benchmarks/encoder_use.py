"""How much a trained network uses its encoder: Dice with the encoder's taps whole, and blurred.

Usage: python benchmarks/encoder_use.py STUDY [ROW ...]

For every finished run of a study, the fused taps are replaced by their mean over all patches, so
that the decoder learns nothing from them about where anything is, and the validation cases are
segmented again. A Dice that stays says that the raw image's skip alone solves the task; then no
pre-training of the encoder can help, whatever the regime. Prints pooled Dice as a mean over runs.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import torch
from monai.transforms import Compose, LoadImaged, Orientationd, Spacingd
from torch import Tensor
from tqdm import tqdm

from lora_ext import load_model, network_from_record
from lora_ext.bundles.generator import bundle_facts
from lora_ext.data import LabelsToRegionsd, NormalizeModalitiesd, SelectChannelsd, fold_cases
from lora_ext.evaluation import PooledDice


def run_cases(run: dict) -> dict[str, list[dict]]:
    """Return the training and the validation cases of a study's run, from its ``run.json``."""
    facts = bundle_facts()[Path(run["bundle"]).name] | run["knobs"]
    words = run["commands"]["training"]
    return fold_cases(
        words[words.index("--dataset_dir") + 1], facts["modalities"], run["regions"],
        fold=run["fold"], num_folds=facts["num_folds"], split_seed=facts["split_seed"],
        training_cases=facts["training_cases"],
    )  # fmt: skip


def prepared(run: dict, cases: list[dict]) -> list[tuple[Tensor, Tensor]]:
    """Preprocess cases as the run's bundle does: images (C, H, W, D), regions (R, H, W, D)."""
    facts = bundle_facts()[Path(run["bundle"]).name] | run["knobs"]
    keys = ["image", "label"]
    prepare = Compose([
        LoadImaged(keys, image_only=True, ensure_channel_first=True),
        SelectChannelsd("image"),
        Orientationd(keys, axcodes="RAS", labels=None),
        Spacingd(keys, pixdim=facts["spacing"], mode=("bilinear", "nearest")),
        NormalizeModalitiesd("image", facts["intensity"], facts["modalities"]),
        LabelsToRegionsd("label", run["regions"]),
    ])  # fmt: skip
    items = [prepare(case) for case in cases]
    return [(item["image"].as_tensor(), item["label"].as_tensor()) for item in items]


def without_places(taps: list[Tensor]) -> list[Tensor]:
    """Replace every patch's token of the fused taps (B, N, hidden) by their mean."""
    return [tap.mean(dim=1, keepdim=True).expand_as(tap) for tap in taps]


@torch.inference_mode()
def pooled_dice(run: dict, folder: Path) -> tuple[float, float]:
    """Compute pooled Dice of a run's model with its taps as they are, and without places.

    Raises:
        ValueError: for cases of another size than the network's one window.
    """
    config = json.loads((folder / "models" / "network.json").read_text(encoding="utf-8"))
    network = network_from_record(config).eval()
    load_model(network, folder / "models" / "model.pt")
    whole, blurred = PooledDice(), PooledDice()
    for image, regions in prepared(run, run_cases(run)["validation"]):
        if list(image.shape[1:]) != config["img_size"]:
            raise ValueError(
                f"{folder}: expected cases of one window, {config['img_size']} voxels, got "
                f"{list(image.shape[1:])}"
            )
        taps = network.fusion(network.encoder(image[None]))
        for metric, own in ((whole, taps), (blurred, without_places(taps))):
            metric((network.decoder(image[None], own) > 0).float(), regions[None])
    return float(whole.aggregate()), float(blurred.aggregate())


def main(arguments: list[str]) -> None:
    """Measure every finished run of a study and print a line per row."""
    study, rows = Path(arguments[0]), set(arguments[1:])
    found = defaultdict(list)
    paths = sorted(study.glob("runs/*/*/run.json"))
    for path in tqdm(paths):
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["status"] != "done" or run["reference"] or (rows and run["row"] not in rows):
            continue
        found[run["row"]].append(pooled_dice(run, path.parent))
    print(f"{'':<22}{'as it is':>10}{'taps without places':>21}{'runs':>6}")
    for row, values in found.items():
        whole, blurred = (mean(column) for column in zip(*values, strict=True))
        print(f"{row:<22}{whole:>10.3f}{blurred:>21.3f}{len(values):>6}")


if __name__ == "__main__":
    main(sys.argv[1:])
