"""Segment many cases in one process and watch its memory.

Usage: python benchmarks/soak.py OUT [--cases 200]     from the repository's root

A small, untrained `brats_lora16` segments phantoms through the bundle's own inference.json, four
files under as many names as there are cases. The resident memory after each case is drawn to
OUT/soak.png; the largest growth after the first tenth of the cases is printed.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import fire
import matplotlib.pyplot as plt
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from lora_ext import ChannelLoRAUNETR
from lora_ext.phantoms import write_phantoms
from lora_ext.weights import save_model

SIZES = {"feature_size": 8, "hidden_size": 48, "mlp_dim": 96, "num_layers": 4, "num_heads": 4}
NAMES = ("FLAIR", "T1w", "t1gd", "T2w")


def resident() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def images(out: Path, cases: int) -> Path:
    """Lay four phantoms out as many cases, by links."""
    written = write_phantoms("brats", out / "phantoms", cases=4, size=(64, 64, 32), test_cases=0)
    sources = sorted((written / "imagesTr").iterdir())
    folder = out / "cases"
    folder.mkdir()
    for number in range(cases):
        (folder / f"case_{number:04d}.nii.gz").symlink_to(sources[number % 4].resolve())
    return folder


def soak(out: str, cases: int = 200, num_workers: int = 0) -> None:
    """Run it.

    Args:
        out: a folder that does not exist yet.
        cases: number of cases.
        num_workers: the setting of inference.
    """
    folder = Path(out)
    folder.mkdir(parents=True)
    network = ChannelLoRAUNETR(4, 3, (32, 32, 32), lora_rank=4, modalities=NAMES, **SIZES)
    save_model(network, folder / "models" / "model.pt")
    workflow = ConfigWorkflow(
        "bundles/brats_lora16/configs/inference.json", workflow_type="infer", logging_file=False,
        dataset_dir=str(images(folder, cases)), ckpt_dir=str(folder / "models"),
        output_dir=str(folder / "segmentations"), num_workers=num_workers,
    )  # fmt: skip
    logging.getLogger().setLevel(logging.ERROR)
    workflow.initialize()
    memory: list[float] = []
    evaluator = workflow.parser.get_parsed_content("evaluator")
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda: memory.append(resident()))
    workflow.run()
    settled = memory[len(memory) // 10 :]
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(range(1, len(memory) + 1), memory, color="black", linewidth=1)
    axes.set(xlabel="cases segmented", ylabel="resident memory, MiB", ylim=(0, 1.2 * max(memory)))
    figure.savefig(folder / "soak.png", dpi=110)
    written = len(list((folder / "segmentations").glob("*.nii.gz")))
    print(
        f"{written} segmentations; memory {settled[0]:.0f} MiB after {len(memory) // 10} cases, "
        f"{settled[-1]:.0f} MiB at the end, {max(settled) - settled[0]:.0f} MiB above that at most"
    )


if __name__ == "__main__":
    fire.Fire(soak)
