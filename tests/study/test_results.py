"""Records of runs, and results.json."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events

from lora_ext import network_from_record, parameter_report
from lora_ext.study import DeviceRecord, ReferenceNetwork
from lora_ext.study.plan import Run
from lora_ext.study.results import (
    count_parameters,
    dice_frame,
    encoder_start,
    make_record,
    read_curve,
    read_json,
    run_frame,
    titles,
    training_cases,
    write_json,
    write_results,
)
from lora_ext.training import StartTraining, TrainingLog

RUN = Run("brats_lora32", "brats", "lora32", False, "brats_lora32", 3, 1, "data", {"epochs": 2})
ARGV = {"training": ["python"], "evaluating": ["python"]}
KEYS = {
    "row", "dataset", "regime", "reference", "bundle", "seed", "fold", "knobs", "encoder",
    "commands", "status", "error", "seconds", "peak_memory_mb", "parameters", "regions", "summary",
    "cases", "curve", "training_cases", "folder",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, small_network):
    """The folder of a run that has ended."""
    folder = tmp_path / RUN.folder
    metrics = {"regions": {"TC": [2]}, "summary": {"pooled_dice": 0.5}, "cases": [{"case": "a"}]}
    metrics["encoder"] = "random"
    write_json(folder / "eval/metrics.json", metrics)
    write_json(folder / "device.json", {"device": "cpu", "peak_memory_mb": 12.5})
    write_json(folder / "models/network.json", small_network().config)
    (folder / "training.log").write_text(
        "INFO epoch 1/2: loss 1.5, learning rate 0.1, 3 s\n", encoding="utf-8"
    )
    return folder


def test_a_finished_run_has_its_metrics_curve_and_counts(folder, small_network):
    record = make_record(RUN, folder, ARGV, {"training": 1.234, "evaluating": 2}, None)
    assert set(record) == KEYS
    assert (record["status"], record["encoder"]) == ("done", "random")
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
    assert record["summary"] is record["encoder"] is None
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
        folder = f"runs/{row}/seed{seed}_fold{fold}"
        record = {"row": row, "seed": seed, "fold": fold, "folder": folder}
        write_json(tmp_path / folder / "run.json", record)
    records = write_results(tmp_path, "command")["runs"]
    assert [(r["row"], r["seed"], r["fold"]) for r in records] == wanted


def test_results_say_where_and_with_what_they_were_made(folder, tmp_path):
    record = make_record(RUN, folder, ARGV, {"training": 1, "evaluating": 2}, None)
    write_json(folder / "run.json", record)
    results = write_results(tmp_path, "python -m lora_ext study")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == results
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
    assert network_from_record(config).config == small_network().config


def test_frames_have_one_row_per_run_and_per_value_in_the_paper_s_order(make_results, fail):
    results = make_results(regimes=("segresnet", "lora64", "lora8", "baseline", "finetune"))
    results["runs"].reverse()
    results["runs"][0] = fail(results["runs"][0])
    runs, dice = run_frame(results), dice_frame(results)
    assert len(runs) == 19
    assert list(runs["dataset"].cat.categories) == ["brats", "prostatex"]
    order = ["baseline", "finetune", "lora64", "lora8", "segresnet"]
    assert list(runs["regime"].cat.categories) == order
    assert set(runs.loc[runs["reference"], "regime"]) == {"segresnet"}
    assert list(dice["measure"].cat.categories)[-2:] == ["mean_dice", "pooled_dice"]
    assert len(dice) == 10 * 5 + 9 * 4  # runs, measures
    assert len(dice_frame(results, per_case=True)) == 5 * len(dice)


def test_values_of_the_frames_are_those_of_results_json(make_results):
    results = make_results(("prostatex",), ("frozen", "lora32"))
    overall, cases = dice_frame(results), dice_frame(results, per_case=True)
    for run in results["runs"]:
        own = [
            f[(f["regime"] == run["regime"]) & (f["seed"] == run["seed"])] for f in (overall, cases)
        ]
        values = own[0].set_index("measure")["value"]
        assert values["pooled_dice"] == run["summary"]["pooled_dice"]
        assert values["PZ"] == run["summary"]["regions"]["PZ"]["dice"]
        dice = own[1].pivot(index="case", columns="measure", values="value")
        for case in run["cases"]:
            assert dice.loc[case["case"], "TZ"] == case["regions"]["TZ"]["dice"]
        np.testing.assert_allclose(dice["PZ"].mean(), values["PZ"])


def test_no_runs_are_empty_frames(make_run, fail):
    for results in ({"runs": []}, {"runs": [fail(make_run("brats", "lora32"))]}):
        assert run_frame(results).empty
        assert dice_frame(results).empty
        assert titles(run_frame(results)) == {}


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({}, "encoder.safetensors (sha256 0123456789ab)"),
        ({"encoder": "random"}, "random"),
        ({"encoder": None, "knobs": {"pretrained": "none"}}, "random"),  # before runs told it
        ({"encoder": None, "knobs": {"pretrained": "vit.pt"}}, "vit.pt"),
        ({"encoder": None}, "unknown"),
        ({"encoder": "random", "regime": "baseline"}, None),
        ({"encoder": "random", "reference": True}, None),
    ],
)
def test_what_an_encoder_started_from_is_known_or_said_to_be_unknown(make_run, change, start):
    assert encoder_start(make_run("brats", "lora32") | change) == start


def test_titles_mark_regimes_that_should_have_started_pre_trained(make_results):
    results = make_results(("brats",), ("baseline", "frozen", "lora16", "lora32", "segresnet"))
    for run in results["runs"]:
        if run["regime"] == "lora16" or (run["regime"], run["seed"]) == ("lora32", 1):
            run["encoder"] = "random"
    assert list(titles(run_frame(results)).values()) == [
        "Baseline",
        "Frozen",
        "LoRA-16 (random encoder)",
        "LoRA-32 (random encoder in 1 of 2 runs)",
        "SegResNet",
    ]


RESUMED = """\
10:00:00 INFO epoch 1/3: loss 1.5000, learning rate 0.0041, 0.5 s
10:00:01 INFO epoch 1/3: validation pooled_dice 0.1000 (best 0.1000 in epoch 1), mean_dice 0.1, TC
10:00:02 INFO epoch 2/3: loss 1.4000, learning rate 4e-06, 0.5 s
something else entirely, epoch 9 of nothing
10:01:00 INFO resumed from last.ckpt after epoch 1
10:01:02 INFO epoch 2/3: loss 1.3000, learning rate 4e-06, 0.5 s
10:01:03 INFO epoch 3/3: loss 1.2"""


def test_a_repeated_epoch_counts_the_second_time_and_a_torn_line_not_at_all(tmp_path):
    (tmp_path / "x.log").write_text(RESUMED, encoding="utf-8")
    assert read_curve(tmp_path / "x.log") == [
        {"epoch": 1, "loss": 1.5, "learning_rate": 0.0041, "seconds": 0.5, "val_pooled_dice": 0.1},
        {"epoch": 2, "loss": 1.3, "learning_rate": 4e-6, "seconds": 0.5, "val_pooled_dice": None},
    ]


def test_a_missing_log_is_an_empty_curve(tmp_path):
    assert read_curve(tmp_path / "none.log") == []


def test_what_training_really_logs_is_understood(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trainer = Engine(lambda engine, batch: [{"loss": 0.75}])
    validator = Engine(lambda engine, batch: None)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.005)
    TrainingLog(validator, ["TC"], optimizer).attach(trainer)
    trainer.run([0], max_epochs=2)
    validator.state.metrics = {"val_pooled_dice": 0.5, "TC": 0.25}
    validator.state.best_metric = validator.state.best_metric_epoch = 0.5
    validator.state.epoch = validator.state.best_metric_epoch = 2
    validator.fire_event(Events.COMPLETED)
    (tmp_path / "x.log").write_text(caplog.text, encoding="utf-8")
    assert read_curve(tmp_path / "x.log") == [
        {"epoch": 1, "loss": 0.75, "learning_rate": 0.005, "seconds": 0.0, "val_pooled_dice": None},
        {"epoch": 2, "loss": 0.75, "learning_rate": 0.005, "seconds": 0.0, "val_pooled_dice": 0.5},
    ]


def test_the_number_of_training_cases_is_read_where_the_log_tells_it(
    tmp_path, caplog, small_network
):
    caplog.set_level(logging.INFO)
    trainer, validator = Engine(lambda *_: None), Engine(lambda *_: None)
    for engine, count in ((trainer, 17), (validator, 1)):
        items = [{"case": "a", "image": "a.nii.gz"}] * count
        engine.data_loader = SimpleNamespace(dataset=SimpleNamespace(data=items))
    StartTraining(validator, small_network(regime="baseline")).begin(trainer)
    (tmp_path / "x.log").write_text(RESUMED + "\n" + caplog.text, encoding="utf-8")
    assert training_cases(tmp_path / "x.log") == 17
    (tmp_path / "x.log").write_text(RESUMED, encoding="utf-8")
    assert training_cases(tmp_path / "x.log") is None
    assert training_cases(tmp_path / "none.log") is None


def test_an_epoch_without_its_seconds_is_an_epoch_all_the_same(tmp_path):
    (tmp_path / "x.log").write_text(
        "INFO epoch 1/3: loss 1.5000, learning rate 0.0041, 0.", encoding="utf-8"
    )
    (point,) = read_curve(tmp_path / "x.log")
    assert (point["loss"], point["seconds"]) == (1.5, None)


def run_on(device, path):
    """One epoch of an engine that says it runs on a device."""
    engine = Engine(lambda engine, batch: None)
    engine.state.device = torch.device(device)
    DeviceRecord(path).attach(engine)
    engine.run([0], max_epochs=1)
    return json.loads(path.read_text(encoding="utf-8"))


def test_on_the_cpu_the_peak_is_the_resident_size(tmp_path):
    pytest.importorskip("resource")
    record = run_on("cpu", tmp_path / "device.json")
    if not Path("/proc/self/status").is_file():
        pytest.skip("this system has no /proc/self/status to compare with")
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    assert record["device"] == "cpu"
    kilobytes = int(status["VmHWM"].split()[0])
    assert record["peak_memory_mb"] == pytest.approx(kilobytes / 1024, rel=0.05)


def test_on_a_gpu_the_peak_is_what_torch_allocated(tmp_path, monkeypatch):
    device = torch.device("cuda", 0)
    gpu = SimpleNamespace(peak=3 * 2**20)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: {device: "Some GPU"}[d])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda d: gpu.peak)
    path = tmp_path / "device.json"
    assert run_on("cuda:0", path) == {"device": "Some GPU", "peak_memory_mb": 3.0}
    gpu.peak = 2**20  # a resumed run that has not seen the peak yet
    assert run_on("cuda:0", path)["peak_memory_mb"] == 3.0
    assert run_on("cpu", path)["peak_memory_mb"] > 50  # another device counts anew
