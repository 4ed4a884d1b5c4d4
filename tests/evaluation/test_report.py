"""The report handler inside MONAI's evaluator, and its cases gathered over two ranks."""

from __future__ import annotations

import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted, Compose, CopyItemsd, LoadImaged

import lora_ext.evaluation
from lora_ext.evaluation import CaseReport

REGIONS = {"TC": [2], "WT": [1, 2]}
AFFINE = np.diag([0.5, 1.0, 4.0, 1.0])


def item(
    name: str | None = "one", predicted: int = 2, true: int = 4, **more: Any
) -> dict[str, Any]:
    """One decollated case; each region is a bar of the given number of voxels."""
    masks = torch.zeros(2, 2, 6, 5, 4)
    masks[0, :, :predicted, 2, 2] = 1
    masks[1, :, :true, 2, 2] = 1
    image = torch.arange(2 * 6 * 5 * 4, dtype=torch.float32).reshape(2, 6, 5, 4)
    case = {} if name is None else {"case": name}
    label = MetaTensor(masks[1], affine=torch.from_numpy(AFFINE))
    return {"picture": image, "label": label, "pred": masks[0], **case, **more}


def run(report: CaseReport, *batches: list[dict[str, Any]]) -> None:
    engine = Engine(lambda engine, batch: batch)
    report.attach(engine)
    engine.run(batches)


def content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def test_every_case_of_every_batch_is_measured_in_mm(tmp_path: Path) -> None:
    run(CaseReport(tmp_path / "eval", REGIONS), [item("b"), item("a", 4)], [item("c", 0)])
    written = content(tmp_path / "eval")
    assert [case["case"] for case in written["cases"]] == ["a", "b", "c"]
    assert [case["mean_dice"] for case in written["cases"]] == [1.0, 4 / 6, 0.0]
    assert written["summary"]["pooled_dice"] == pytest.approx(2 * (4 + 2 + 0) / (8 + 6 + 4))
    second = written["cases"][1]
    assert second["spacing_mm"] == [0.5, 1.0, 4.0]
    assert second["regions"]["WT"]["truth_ml"] == pytest.approx(4 * 2.0 / 1000)
    # The bar of four lacks its last two voxels, 0.5 and 1 mm away from the end of the bar of two:
    # the 95th percentile of (0, 0, 0.5, 1) mm.
    assert second["regions"]["WT"]["hd95_mm"] == pytest.approx(np.percentile([0, 0, 0.5, 1], 95))
    with (tmp_path / "eval" / "cases.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 3 * 2
    drawn = sorted(path.name for path in (tmp_path / "eval" / "figures").iterdir())
    assert drawn == ["a.png", "b.png", "c.png"]


def test_a_second_run_starts_from_nothing(tmp_path: Path) -> None:
    report = CaseReport(tmp_path, REGIONS, figures=False)
    run(report, [item("a"), item("b")])
    run(report, [item("c")])
    assert [case["case"] for case in content(tmp_path)["cases"]] == ["c"]
    assert not (tmp_path / "figures").exists()


def test_without_a_picture_there_is_no_figure(tmp_path: Path) -> None:
    without = item("a")
    without["image"] = without.pop("picture")  # normalised: not for the figure
    run(CaseReport(tmp_path, REGIONS), [without])
    assert not (tmp_path / "figures").exists()


def test_the_report_says_which_encoder_the_network_was_trained_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = SimpleNamespace(config={"encoder": "a.safetensors (sha256 12ab)"})
    with caplog.at_level(logging.INFO, logger="lora_ext"):
        run(CaseReport(tmp_path, REGIONS, figures=False, network=network), [item("a")])
    assert content(tmp_path)["encoder"] == "a.safetensors (sha256 12ab)"
    assert "Encoder: a.safetensors (sha256 12ab)" in (tmp_path / "report.html").read_text(
        encoding="utf-8"
    )
    assert "encoder: a.safetensors (sha256 12ab)" in caplog.text
    run(CaseReport(tmp_path, REGIONS, figures=False), [item("a")])
    assert content(tmp_path)["encoder"] is None
    assert "Encoder" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_table_goes_to_the_projects_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lora_ext"):
        run(CaseReport(tmp_path, REGIONS, figures=False), [item("BRATS_007")])
    assert "BRATS_007   0.667   0.667   0.667   0.667" in caplog.text


def test_an_image_on_another_grid_is_not_drawn_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = torch.rand(1, 3, 3, 3)
    with caplog.at_level(logging.INFO, logger="lora_ext"):
        run(CaseReport(tmp_path, REGIONS), [item("a", picture=other), item("b", picture=other)])
    assert caplog.text.count("no figure for") == 1
    assert not (tmp_path / "figures").exists()
    assert len(content(tmp_path)["cases"]) == 2


def test_a_case_name_cannot_lead_out_of_the_figures_folder(tmp_path: Path) -> None:
    run(CaseReport(tmp_path / "eval", REGIONS), [item("../../evil case")])
    (picture,) = (tmp_path / "eval" / "figures").iterdir()
    assert picture.name.startswith("_.._evil_case")


def test_cases_are_named_after_the_labels_file_else_numbered(tmp_path: Path) -> None:
    named = item(None)
    named["label"].meta["filename_or_obj"] = "/data/labelsTr/BRATS_003.nii.gz"
    run(CaseReport(tmp_path, REGIONS, figures=False), [named, item(None)])
    assert [case["case"] for case in content(tmp_path)["cases"]] == ["BRATS_003", "case_0_0001"]


def test_two_files_of_the_same_name_are_two_cases(tmp_path: Path) -> None:
    same = [item(None), item(None, 4)]
    for number, case in enumerate(same):
        case["label"].meta["filename_or_obj"] = f"/site{number}/seg.nii.gz"
    run(CaseReport(tmp_path, REGIONS, figures=False), same)
    assert content(tmp_path)["summary"]["cases"] == 2


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"pred": torch.zeros(1)}, "got dict; decollate it"),
        ([{"pred": torch.zeros(1)}], "expected 'label' in the engine's output"),
        (
            [item("x", label=torch.zeros(2, 6, 5, 4))],
            "x: expected the label as a MetaTensor.*got Tensor",
        ),
        (
            [item("x", pred=torch.zeros(3, 6, 5, 4))],
            r"x: expected a prediction .*got the shape \(3, 6, 5, 4\)",
        ),
    ],
)
def test_an_output_that_cannot_be_measured_is_refused(
    tmp_path: Path, batch: Any, message: str
) -> None:
    engine = Engine(lambda engine, batch: batch)
    engine.logger.setLevel(logging.CRITICAL)
    CaseReport(tmp_path, REGIONS).attach(engine)
    with pytest.raises(ValueError, match=message):
        engine.run([batch])


def test_it_is_a_handler_of_a_monai_evaluator_that_reads_files(tmp_path: Path) -> None:
    files = []
    for number in range(3):
        values = np.zeros((6, 5, 4, 2), dtype=np.float32)
        values[: number + 1, 2, 2] = 1
        path = tmp_path / f"case{number}.nii.gz"
        nib.save(nib.Nifti1Image(values, AFFINE), path)
        files.append({"image": str(path), "label": str(path)})
    preprocessing = Compose(
        [
            LoadImaged(["image", "label"], ensure_channel_first=True),
            CopyItemsd("image", names="picture"),
        ]
    )
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(files, preprocessing), batch_size=2),
        network=torch.nn.Identity(),
        postprocessing=AsDiscreted(keys="pred", threshold=0.5),
        val_handlers=[CaseReport(tmp_path / "eval", REGIONS, channel_names=["T2", "ADC"])],
    )
    evaluator.run()
    written = content(tmp_path / "eval")
    assert [case["case"] for case in written["cases"]] == ["case0", "case1", "case2"]
    assert written["cases"][2]["regions"]["TC"]["truth_ml"] == pytest.approx(3 * 0.002)
    assert written["summary"]["mean_dice"] == 1.0
    assert len(list((tmp_path / "eval" / "figures").glob("*.png"))) == 3


RANK_SCRIPT = """
import json, sys, torch, torch.distributed as dist
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler, from_engine
from lora_ext.evaluation import CaseReport, PooledDice
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
def case(name, count):
    masks = torch.zeros(2, 1, 4, 4, 4)
    masks[0].view(-1)[:count] = 1
    masks[1].view(-1)[:8] = 1
    return {"case": name, "pred": masks[0], "label": MetaTensor(masks[1])}
batches = [[[case("a", 8)], [case("b", 0)]], [[case("c", 4)], [case("a", 8)]]][rank]
engine = Engine(lambda engine, batch: batch)
CaseReport(f"{folder}/eval{rank}", {"WT": [1]}).attach(engine)
metric = IgniteMetricHandler(PooledDice(), output_transform=from_engine(["pred", "label"]))
metric.attach(engine, "pooled_dice")
engine.run(batches)
open(f"{folder}/pooled{rank}", "w").write(str(engine.state.metrics["pooled_dice"]))
dist.destroy_process_group()
"""


def test_two_ranks_pool_their_voxels_and_rank_0_reports_each_case_once(tmp_path: Path) -> None:
    root = str(Path(lora_ext.evaluation.__file__).parents[2])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK_SCRIPT, str(rank), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=120)
        assert rank.returncode == 0, errors.decode()
    written = content(tmp_path / "eval0")
    assert [case["case"] for case in written["cases"]] == ["a", "b", "c"]
    assert [case["mean_dice"] for case in written["cases"]] == [1.0, 0.0, 8 / 12]
    assert not (tmp_path / "eval1").exists()
    pooled = [float((tmp_path / f"pooled{rank}").read_text(encoding="utf-8")) for rank in range(2)]
    # The metric, like MONAI's, counts the case that both ranks had twice.
    assert pooled == [pytest.approx(2 * (8 + 0 + 4 + 8) / (16 + 8 + 12 + 16))] * 2


def test_a_case_is_called_after_its_image_where_the_label_map_has_another_name(
    tmp_path: Path,
) -> None:
    named = item(None)
    named["image"] = MetaTensor(torch.zeros(1, 6, 5, 4), meta={"filename_or_obj": "a_1.nii.gz"})
    named["label"].meta["filename_or_obj"] = "/data/a_1/a_1_seg.nii.gz"
    run(CaseReport(tmp_path, REGIONS, figures=False), [named])
    assert [case["case"] for case in content(tmp_path)["cases"]] == ["a_1"]
