"""Handlers of evaluation and inference: measure every case, write the report, show progress."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.data import MetaTensor
from monai.utils import CommonKeys, ImageMetaKey
from tqdm import tqdm

from lora_ext.data.regions import Regions
from lora_ext.evaluation.metrics import CaseMetrics, case_metrics
from lora_ext.evaluation.page import figure_path, write_page
from lora_ext.evaluation.tables import text_table, write_csv, write_json
from lora_ext.figures.overlay import overlay_figure, save_figure
from lora_ext.images.image_file import case_name

logger = logging.getLogger("lora_ext")

PICTURE = "picture"  # key of the image with the intensities of its file, for the figures


class CaseReport:
    """Ignite handler that measures each evaluated case and writes the report at the end.

    It reads `engine.state.output`, a list of one dictionary per case (decollated): `pred` and
    `label`, binary (R, H, W, D) on the same grid, the label a `MetaTensor` that knows its
    spacing; `case` (the name) where there is one, else the name of the label's file; and, there or
    in `engine.state.batch`, `picture` (C, H, W, D), the image as it is in the file, for the
    figures. In `output_dir` it writes

    - `cases.csv`: one row per case and region,
    - `metrics.json`: the summary, every case and the rule for empty regions,
    - `report.html`: the same as a page to look through, worst cases first,
    - `figures/<case>.png`: image, ground truth and prediction, where image and label share a grid,

    and logs a table. With several ranks, cases are gathered and rank 0 writes; a case that a
    distributed sampler gave to two ranks counts once. Nothing is written before the run is
    complete, but for the figures.

    Args:
        output_dir: folder of the report; made when it does not exist.
        regions: region name -> labels, in the order of the masks' channels.
        figures: draw one figure per case.
        channel: index of the image channel that is drawn.
        channel_names: the image channels' names, for the figure.
        network: its ``config`` tells which encoder it was trained from, and which of the cases it
            was trained on, which the report says.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        regions: Regions,
        *,
        figures: bool = True,
        channel: int = 0,
        channel_names: Sequence[str] | None = None,
        network: Any = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.regions = dict(regions)
        self.figures = figures
        self.channel = channel
        self.channel_names = channel_names
        self.network = network
        self._measured: dict[str, CaseMetrics] = {}
        self._told_grid = False

    def attach(self, engine: Engine) -> None:
        """Register on `engine`: measure after each iteration, write when the run is complete.

        Args:
            engine: an evaluator.
        """
        engine.add_event_handler(Events.STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.measure)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def reset(self, engine: Engine | None = None) -> None:
        """Forget the cases of an earlier run."""
        self._measured = {}

    def measure(self, engine: Engine) -> None:
        """Measure the cases of this iteration.

        Args:
            engine: the evaluator; its `state.output` is read.

        Raises:
            ValueError: if the output is not a list of dictionaries with `pred` and `label`, or a
                case's masks do not fit the regions.
        """
        output = engine.state.output
        if not isinstance(output, list):
            raise ValueError(
                "CaseReport: expected the engine's output to be a list of dictionaries, got "
                f"{type(output).__name__}; decollate it (decollate=True)"
            )
        # An evaluator's output has nothing but input, label and prediction; the picture stays in
        # the batch, which MONAI decollates too.
        batch = engine.state.batch
        inputs = batch if isinstance(batch, list) else [{}] * len(output)
        for loaded, item in zip(inputs, output, strict=True):
            self._measure_one(item, item.get(PICTURE, loaded.get(PICTURE)))

    def write(self, engine: Engine | None = None) -> None:
        """Gather the cases of all ranks; on rank 0 write the files and log the table.

        Raises:
            ValueError: if no case was evaluated.
        """
        gathered: dict[str, CaseMetrics] = {}
        for measured in idist.all_gather(self._measured):  # type: ignore[union-attr]
            gathered.update(measured)  # type: ignore[arg-type]
        if idist.get_rank() != 0:
            return
        cases = sorted(gathered.values(), key=lambda case: case.case)
        if not cases:
            raise ValueError(f"{self.output_dir}: expected at least 1 evaluated case, got 0")
        write_csv(self.output_dir / "cases.csv", cases)
        record = getattr(self.network, "config", {})
        encoder, seen = record.get("encoder"), record.get("seen_in_training", [])
        write_json(self.output_dir / "metrics.json", cases, self.regions, encoder, seen)
        write_page(self.output_dir / "report.html", cases, encoder, seen)
        logger.info("%d cases, report in %s\n%s", len(cases), self.output_dir, text_table(cases))
        if encoder is not None:
            logger.info("encoder: %s", encoder)

    def _measure_one(self, item: Mapping[str, Any], picture: torch.Tensor | None) -> None:
        for key in (CommonKeys.PRED, CommonKeys.LABEL):
            if key not in item:
                raise ValueError(
                    f"CaseReport: expected {str(key)!r} in the engine's output, got {sorted(item)}"
                )
        label = item[CommonKeys.LABEL]
        # The file's path tells two cases of the same name apart.
        source = _source(item, CommonKeys.LABEL, CommonKeys.IMAGE)
        # `NameAfterCased` named the image; a label map may be called otherwise.
        named = _source(item, CommonKeys.IMAGE, CommonKeys.LABEL)
        number = f"case_{idist.get_rank()}_{len(self._measured):04d}"
        case = str(item.get("case") or (case_name(named) if named else number))
        if not isinstance(label, MetaTensor):
            raise ValueError(
                f"{case}: expected the label as a MetaTensor, which knows its spacing, got "
                f"{type(label).__name__}"
            )
        self._measured[source or case] = case_metrics(
            item[CommonKeys.PRED], label, label.pixdim.tolist(), self.regions, case=case
        )
        if self.figures and picture is not None:
            self._draw(case, picture, label, item[CommonKeys.PRED])

    def _draw(
        self, case: str, image: torch.Tensor, label: MetaTensor, prediction: torch.Tensor
    ) -> None:
        if image.shape[1:] != label.shape[1:]:
            if not self._told_grid:
                logger.info(
                    "no figure for %s and cases like it: the image has %s voxels, the label %s",
                    *(case, tuple(image.shape[1:]), tuple(label.shape[1:])),
                )
            self._told_grid = True
            return
        figure = overlay_figure(
            *(image, label, prediction, self.regions),
            affine=label.affine.cpu().numpy(),
            title=case,
            channel=self.channel,
            channel_names=self.channel_names,
        )
        save_figure(figure, self.output_dir / figure_path(case))


def _source(item: Mapping[str, Any], *keys: str) -> str:
    """Return the path of the first of some files that is known; empty when none is."""
    for key in keys:
        meta = getattr(item.get(key), "meta", {})
        if meta.get(ImageMetaKey.FILENAME_OR_OBJ):
            return str(meta[ImageMetaKey.FILENAME_OR_OBJ])
    return ""


class CaseLog:
    """A progress bar over the cases with the time left, and a line that says where the files are.

    In a log file, where there is no bar, a line after each case says the time left.

    Args:
        output_dir: the folder that the segmentations are written to.
    """

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.output_dir = os.fspath(output_dir)
        self.cases = 0
        self.started = 0.0

    def attach(self, engine: Engine) -> None:
        """Register on a MONAI evaluator."""
        ProgressBar(desc="inference", disable=None).attach(engine)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def _start(self) -> None:
        self.started = time.monotonic()

    def _count(self, engine: Engine) -> None:
        output: Any = engine.state.output
        self.cases += len(output)
        done, of = engine.state.iteration, engine.state.epoch_length
        if not sys.stderr.isatty() and of:
            left = (time.monotonic() - self.started) / done * (of - done)
            logger.info("%d of %d cases, %s left", done, of, tqdm.format_interval(left))

    def _close(self, engine: Engine) -> None:
        logger.info("%d segmentations written to %s", self.cases, self.output_dir)
