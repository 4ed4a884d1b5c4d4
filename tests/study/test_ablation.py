"""Variants, what they sum up to, the page and the plot; the whole verb, and once for real."""

import inspect
import json
import math
import re
import shlex
import sys
from pathlib import Path

import pytest
from monai.networks.nets import ViT
from torch import nn

from lora_ext import __main__ as command
from lora_ext.networks.lora import SCALINGS
from lora_ext.study import run_ablation
from lora_ext.study.ablation import (
    PLACEMENTS,
    RANKS,
    TARGETS,
    draw,
    merge,
    plan_variants,
    seconds_per_step,
    summarise,
    variants_table,
    write_ablation_page,
)
from lora_ext.study.pages import NONE

BUNDLE = "brats_lora32"
WRITTEN = ["ablation.json", "ablation.md", "ablation.png"]
SMALL = {"ranks": (4, 32), "placements": "qkv,out_proj", "pretrained": "none"}
VARIANTS = [
    "rank4_rank_stabilised", "rank4_classical", "rank32_rank_stabilised", "rank32_classical",
    "rank32_attention",
]  # fmt: skip


def written():
    return json.loads(Path("R/ablation.json").read_text(encoding="utf-8"))


def test_every_variant_runs_once_with_its_own_settings(fake, capsys):
    for _ in range(2):
        run_ablation("data", "R", seeds=(0, 1), **SMALL)
    assert len(fake()) == 5 * 2 * 2  # variants, seeds, training and evaluation
    assert [row["name"] for row in written()["variants"]] == VARIANTS
    for row in written()["variants"]:
        records = json.loads(
            (Path("R") / row["name"] / "results.json").read_text(encoding="utf-8")
        )["runs"]
        assert [record["seed"] for record in records] == row["seeds"] == [0, 1]
        for record in records:
            assert record["knobs"] == {
                "pretrained": "none",
                "lora_rank": row["rank"],
                "lora_scaling": row["scaling"],
                "lora_targets": row["targets"],
            }
            words = record["commands"]["training"]
            assert words[words.index("--lora_targets") + 1] == str(row["targets"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1/10 rank4_rank_stabilised brats_lora32 seed 0 fold 0: pooled_dice")
    assert lines[-1] == "ablation.json, ablation.md and ablation.png are in R"
    assert sorted(p.name for p in Path("R").iterdir() if p.is_file()) == [".lock", *WRITTEN]
    page = Path("R/ablation.md").read_text(encoding="utf-8")
    assert page.count("qkv, out_proj (random encoder)") == 1
    assert page.count("out_proj, linear1 (random encoder)") == 4


def test_the_command_line_gives_what_the_recorded_one_gives_again(fake, monkeypatch):
    typed = "--data_dir data --out R --ranks 4 --placements qkv,out_proj --epochs 2"
    typed += " --pretrained none"
    monkeypatch.setattr(sys, "argv", ["lora_ext", "ablation", *typed.split()])
    command.main()
    before = written()
    assert [row["name"] for row in before["variants"]] == [*VARIANTS[:2], "rank32_attention"]
    again = shlex.split(before["command"])
    assert again[:3] == ["python", "-m", "lora_ext"]
    monkeypatch.setattr(sys, "argv", again[2:])
    command.main()
    assert written() | {"created": ""} == before | {"created": ""}
    assert len(fake()) == 3 * 2


def test_a_failed_variant_does_not_end_the_others_and_is_tried_again(fake, capsys, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "rank4_classical training")
    with pytest.raises(SystemExit) as caught:
        run_ablation("data", "R", **SMALL)
    assert caught.value.code == 1
    assert [row["failed"] for row in written()["variants"]] == [0, 1, 0, 0, 0]
    assert "failed: R/rank4_classical/runs/brats_lora32" in capsys.readouterr().err
    page = Path("R/ablation.md").read_text(encoding="utf-8")
    assert "- `rank4_classical: brats_lora32`, seed 0, fold 0: " in page
    monkeypatch.delenv("FAKE_FAIL")
    run_ablation("data", "R", **SMALL)
    assert [row["failed"] for row in written()["variants"]] == [0] * 5
    assert len(fake()) == 4 * 2 + 1 + 2


def test_when_every_run_failed_nothing_is_drawn(fake, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "brats_lora32 training")
    with pytest.raises(SystemExit):
        run_ablation("data", "R", **SMALL)
    assert [row["runs"] for row in written()["variants"]] == [0] * 5
    assert not Path("R/ablation.md").exists()


def test_another_bundle_in_the_same_folder_does_not_mix_in(fake):
    run_ablation("data", "R", 4, "classical", "", "brats_lora16", pretrained="none")
    run_ablation("data", "R", 4, "classical", "", "brats_lora32", seeds=(1, 2), pretrained="none")
    (row,) = written()["variants"]
    assert row["seeds"] == [1, 2]


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"lora_rank": 8}, "--lora_rank; an ablation varies it, use --ranks"),
        ({"lora_scaling": "classical"}, "--lora_scaling; an ablation varies it, use --scalings"),
        ({"lora_targets": ["qkv"]}, "--lora_targets; an ablation varies it, use --placements"),
        ({"epoch": 8}, "unknown setting --epoch; expected one of"),
        ({"bundle": "brats_frozen"}, "--bundle: expected one of .* got 'brats_frozen'"),
        ({"pretrained": "vit.pt"}, "found no file vit.pt"),
    ],
)
def test_bad_requests_end_before_anything_is_run(fake, knobs, sentence):
    with pytest.raises(ValueError, match=re.compile(sentence)):
        run_ablation("data", "R", **knobs)
    assert not Path("R").exists()


def plan(ranks=8, scalings="classical", placements="", bundle="brats_lora32"):
    return plan_variants(bundle, ranks, scalings, placements)


def test_defaults_are_both_scalings_at_every_rank_and_two_more_placements():
    variants = plan(RANKS, tuple(SCALINGS), PLACEMENTS)
    assert [v.name for v in variants] == [
        *(f"rank{r}_{scaling}" for r in RANKS for scaling in SCALINGS),
        "rank32_attention",
        "rank32_all_linears",
    ]
    assert len({v.name for v in variants}) == len(variants)


def test_a_variant_is_three_settings():
    (variant,) = plan(8, "classical")
    assert variant.settings == {
        "lora_rank": 8,
        "lora_scaling": "classical",
        "lora_targets": ["out_proj", "linear1"],
    }


def test_the_shared_variant_is_planned_once_however_its_layers_are_ordered():
    variants = plan(32, "rank_stabilised", "linear1, out_proj;out_proj,qkv;")
    assert [v.name for v in variants] == ["rank32_rank_stabilised", "rank32_attention"]
    assert variants[1].settings["lora_targets"] == ["qkv", "out_proj"]
    assert [v.default_placement for v in variants] == [True, False]


def test_other_placements_are_named_by_their_layers():
    assert plan(placements="linear2,qkv")[-1].name == "rank32_qkv-linear2"
    as_fire_reads_it = ("qkv", "out_proj")  # one placement without a semicolon
    assert plan(placements=as_fire_reads_it)[-1].name == "rank32_attention"


def test_targets_are_all_linear_layers_of_a_block():
    block = ViT(1, (16, 16, 16), (16, 16, 16), 12, 12, 1, 1).blocks[0]
    linears = {n.rpartition(".")[2] for n, m in block.named_modules() if isinstance(m, nn.Linear)}
    assert set(TARGETS) == linears & set(TARGETS)
    assert linears - set(TARGETS) <= {"to_q", "to_k", "to_v"}  # MONAI's cross attention, unused


def test_the_command_lines_defaults_are_the_functions():
    shown, own = (
        {name: p.default for name, p in inspect.signature(f).parameters.items()}
        for f in (command.ablation, run_ablation)
    )
    assert shown == own


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"ranks": "0,4"}, "--ranks: expected whole numbers from 1 on, got 0"),
        ({"ranks": ""}, "--ranks: expected whole numbers such as 0,1,2, got ''"),
        ({"scalings": "rslora"}, "--scalings: expected rank_stabilised or classical, got 'rslora'"),
        ({"scalings": ""}, "--scalings: expected rank_stabilised or classical, got ''"),
        ({"placements": "qkv;fc1"}, "--placements: expected layers of qkv, .* got fc1"),
        ({"bundle": "brats_frozen"}, "--bundle: expected one of .* got 'brats_frozen'"),
    ],
)
def test_bad_variants_name_the_allowed_values(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan(**arguments)


@pytest.fixture
def variants():
    """Two ranks with both scalings, and attention alone."""
    return plan_variants(BUNDLE, (8, 32), "rank_stabilised,classical", "qkv,out_proj")


@pytest.fixture
def results(make_run, variants):
    """Each variant's results.json: two seeds, another bundle's run, Dice that tells the variant."""
    found = []
    for place, variant in enumerate(variants):
        runs = [make_run("brats", "lora32", seed) for seed in (0, 1)]
        for run in runs:
            run["knobs"] |= variant.settings
            run["encoder"] = f"vit{run['seed']}.pt"
            run["summary"]["pooled_dice"] = 0.5 + 0.1 * place + 0.02 * run["seed"]
            run["training_cases"] = 5
            run["parameters"]["adapters"] = 1000 * variant.rank
            seconds = (30.0, 6.0, 6.2, 5.8)  # the first epoch warms up
            run["curve"] = [{"epoch": i, "seconds": s} for i, s in enumerate(seconds)]
        other = make_run("brats", "lora16")
        device = ("unknown", "cpu")[place % 2]  # a variant that failed at once knows none
        found.append({"command": "c", "device": device, "runs": [other, *runs]})
    return found


@pytest.fixture
def merged(variants, results):
    return merge(variants, results, BUNDLE)


@pytest.fixture
def summary(variants, merged):
    return summarise(variants, merged, BUNDLE)


def test_every_variant_has_mean_spread_and_values_of_its_runs(summary):
    for place, row in enumerate(summary["variants"]):
        dice = row["dice"]["pooled_dice"]
        assert dice["values"] == pytest.approx([0.5 + 0.1 * place, 0.52 + 0.1 * place])
        assert dice["mean"] == pytest.approx(0.51 + 0.1 * place)
        assert dice["std"] == pytest.approx(0.02 / math.sqrt(2))
        assert (row["runs"], row["failed"], row["seeds"]) == (2, 0, [0, 1])
        assert row["parameters"]["adapters"] == 1000 * row["rank"]
        assert set(row["dice"]) == {"TC", "WT", "ET", "mean_dice", "pooled_dice"}
    scales = [row["scale"] for row in summary["variants"]]
    assert scales == pytest.approx([8 / 8**0.5, 1, 8 / 32**0.5, 0.25, 8 / 32**0.5])
    json.dumps(summary, allow_nan=False)


def test_a_step_s_seconds_are_the_median_epoch_by_its_steps(results):
    run = results[0]["runs"][1]
    assert seconds_per_step(run) == pytest.approx(6.1 / 3)  # 5 cases, 2 at a time
    assert seconds_per_step(run | {"knobs": {"batch_size": 5}}) == pytest.approx(6.1)
    for lacking in ({"curve": []}, {"training_cases": None}, {"curve": [{"seconds": None}]}):
        assert seconds_per_step(run | lacking) is None


def test_the_device_is_that_of_whichever_runs_tell_it(summary):
    assert summary["device"] == "cpu"


def test_alpha_that_was_asked_for_sets_the_scale(variants, merged):
    for run in merged["runs"]:
        run["knobs"]["lora_alpha"] = 32
    assert summarise(variants, merged, BUNDLE)["variants"][1]["scale"] == 4


def test_the_table_has_a_row_per_variant(summary):
    rows = rows_of(summary)
    assert rows[0] == [
        "Placement", "Rank", "Scaling", "Pooled", "TC", "WT", "ET", "Adapters (M)",
        "Trainable (M)", "Seconds per step", "Runs",
    ]  # fmt: skip
    assert [row[:3] for row in rows[2:]] == [
        ["out_proj, linear1", "8", "rank-stabilised"],
        ["out_proj, linear1", "8", "classical"],
        ["out_proj, linear1", "32", "rank-stabilised"],
        ["out_proj, linear1", "32", "classical"],
        ["qkv, out_proj", "32", "rank-stabilised"],
    ]
    assert rows[2][3] == "0.5100 ± 0.0141"
    assert rows[5][3] == "<u>0.8100</u> ± 0.0141"
    assert rows[6][3] == "**0.9100** ± 0.0141"
    assert rows[2][7:] == ["0.008", "62.835", "2.03", "2"]


def test_the_page_names_settings_encoders_and_failures(variants, results, fail, tmp_path):
    results[1]["runs"][1] = fail(results[1]["runs"][1])
    merged = merge(variants, results, BUNDLE)
    summary = summarise(variants, merged, BUNDLE)
    text = write_ablation_page(summary, merged, tmp_path / "a.md").read_text(encoding="utf-8")
    assert "LoRA started from `vit0.pt`, `vit1.pt`." in text
    assert "`epochs 20`" in text
    assert "lora_rank" not in text
    assert "- `rank8_classical: brats_lora32`, seed 0, fold 0: `RuntimeError" in text
    assert " 1 (1 failed) |" in text
    for rule in ("alpha / √r", "`lora_alpha` is 8", "median time of a training epoch", "0.1 s"):
        assert rule in text


def test_a_variant_without_a_finished_run_is_a_row_of_dashes(variants, results, fail):
    results[1]["runs"] = [fail(run) for run in results[1]["runs"]]
    merged = merge(variants, results, BUNDLE)
    summary = summarise(variants, merged, BUNDLE)
    row = rows_of(summary)[3]
    assert row[3:] == [*[NONE] * 7, "0 (2 failed)"]
    assert len(draw(summary).legends[0].get_texts()) == 3


def test_the_plot_has_a_line_per_scaling_and_a_dot_per_run(summary):
    figure = draw(summary)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    own = "out_proj, linear1"
    names = {f"rank-stabilised: {own}", f"classical: {own}", "rank 32: qkv, out_proj"}
    assert set(lines) == names == {text.get_text() for text in figure.legends[0].get_texts()}
    line = lines[f"rank-stabilised: {own}"]
    assert list(line.get_xdata()) == [8, 32]
    assert list(line.get_ydata()) == pytest.approx([0.51, 0.71])
    dots = [line for line in axes.lines if line.get_color() == "black"]
    assert [len(line.get_xdata()) for line in dots] == [2] * 5
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["8", "32"]


def test_variants_that_started_at_random_are_marked_everywhere(variants, results):
    for run in results[0]["runs"]:
        run["encoder"] = "random"
    summary = summarise(variants, merge(variants, results, BUNDLE), BUNDLE)
    assert [row[0] for row in rows_of(summary)[2:4]] == [
        "out_proj, linear1 (random encoder)",
        "out_proj, linear1",
    ]
    labels = [text.get_text() for text in draw(summary).legends[0].get_texts()]
    assert "rank-stabilised: out_proj, linear1 (random encoder)" in labels
    assert "random weights" in summary["encoder"]


def rows_of(summary):
    lines = variants_table(summary).splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
