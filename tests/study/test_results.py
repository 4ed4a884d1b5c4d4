"""Records of runs, and results.json."""

import json

import pytest

from lora_ext import ChannelLoRAUNETR, parameter_report
from lora_ext.study import ReferenceNetwork
from lora_ext.study.plan import Run
from lora_ext.study.results import (
    collect_runs,
    count_parameters,
    make_record,
    read_json,
    write_json,
    write_results,
)

RUN = Run("brats_lora32", "brats", "lora32", False, "brats_lora32", 3, 1, "data", {"epochs": 2})
ARGV = {"training": ["python"], "evaluating": ["python"]}
KEYS = {
    "row", "dataset", "regime", "reference", "bundle", "seed", "fold", "knobs", "commands",
    "status", "error", "seconds", "peak_memory_mb", "parameters", "regions", "summary", "cases",
    "curve", "training_cases", "folder",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, small_network):
    """The folder of a run that has ended."""
    folder = tmp_path / RUN.folder
    metrics = {"regions": {"TC": [2]}, "summary": {"pooled_dice": 0.5}, "cases": [{"case": "a"}]}
    write_json(folder / "eval/metrics.json", metrics)
    write_json(folder / "device.json", {"device": "cpu", "peak_memory_mb": 12.5})
    write_json(folder / "models/network.json", small_network().config)
    (folder / "training.log").write_text("INFO epoch 1/2: loss 1.5, learning rate 0.1, 3 s\n")
    return folder


def test_a_finished_run_has_its_metrics_curve_and_counts(folder, small_network):
    record = make_record(RUN, folder, ARGV, {"training": 1.234, "evaluating": 2}, None)
    assert set(record) == KEYS
    assert record["status"] == "done"
    assert record["summary"] == {"pooled_dice": 0.5}
    assert record["cases"] == [{"case": "a"}]
    assert record["regions"] == {"TC": [2]}
    assert record["peak_memory_mb"] == 12.5
    assert record["seconds"] == {"training": 1.23, "evaluating": 2}
    assert [point["loss"] for point in record["curve"]] == [1.5]
    counts = record["parameters"]
    network = small_network()
    assert counts["total"] == sum(p.numel() for p in network.parameters())
    assert counts["trainable"] == sum(p.numel() for p in network.trainable_parameters())
    assert counts["encoder"] + counts["fusion_decoder"] + counts["adapters"] == counts["total"]
    assert counts["adapters"] == parameter_report(network).adapters


def test_a_failed_run_has_no_metrics_even_if_old_ones_lie_there(folder):
    record = make_record(RUN, folder, ARGV, {"training": 1, "evaluating": 0}, "it broke")
    assert set(record) == KEYS
    assert (record["status"], record["error"]) == ("failed", "it broke")
    assert record["summary"] is None
    assert record["cases"] == []
    assert record["regions"] == {"TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}


def test_a_run_that_failed_at_once_has_a_record_too(tmp_path):
    record = make_record(RUN, tmp_path, ARGV, {"training": 1, "evaluating": 0}, "it broke")
    assert record["parameters"] is None
    assert record["peak_memory_mb"] is None
    assert record["curve"] == []


def test_parameters_at_the_paper_s_size_are_table_2_s(tmp_path):
    write_json(tmp_path / "a.json", {"in_channels": 4, "out_channels": 3, "lora_rank": 32})
    assert count_parameters(tmp_path / "a.json") == {
        "total": 151_157_187,
        "trainable": 62_834_883,
        "encoder": 88_322_304,
        "fusion_decoder": 54_577_347,
        "adapters": 8_257_536,
    }


def test_a_reference_has_total_and_trainable_alone(tmp_path):
    network = ReferenceNetwork("segresnet", 2, 3, (32, 32, 16))
    write_json(tmp_path / "a.json", network.config)
    total = sum(p.numel() for p in network.parameters())
    assert count_parameters(tmp_path / "a.json") == {"total": total, "trainable": total}


def test_runs_come_in_the_order_of_the_tables(tmp_path):
    wanted = [
        ("brats_baseline", 0, 0),
        ("brats_lora16", 0, 0),
        ("brats_lora16", 0, 1),
        ("brats_lora16", 2, 0),
        ("brats_lora16", 10, 0),
        ("brats_segresnet", 0, 0),
        ("prostatex_frozen", 0, 0),
    ]
    for row, seed, fold in reversed(wanted):
        record = {"row": row, "seed": seed, "fold": fold}
        write_json(tmp_path / f"runs/{row}/seed{seed}_fold{fold}/run.json", record)
    assert [tuple(record.values()) for record in collect_runs(tmp_path)] == wanted


def test_results_say_where_and_with_what_they_were_made(folder, tmp_path):
    record = make_record(RUN, folder, ARGV, {"training": 1, "evaluating": 2}, None)
    write_json(folder / "run.json", record)
    results = write_results(tmp_path, "python -m lora_ext study")
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert set(results) == {"command", "versions", "device", "created", "runs"}
    assert results["device"] == "cpu"
    names = {"python", "lora_ext", "monai", "torch", "numpy", "platform"}
    assert set(results["versions"]) == names
    assert results["runs"] == [record]


def test_a_record_cannot_hold_what_json_has_no_word_for(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "x.json", {"dice": float("nan")})
    assert read_json(tmp_path / "x.json") == {}


def test_networks_of_records_are_described_by_their_own_config(small_network):
    config = json.loads(json.dumps(small_network().config))
    assert ChannelLoRAUNETR(**config).config == small_network().config
