"""Known runs summed up: what goes into ablation.json, the page and the plot."""

from __future__ import annotations

import json
import math

import pytest

from lora_ext.study.ablation_plot import draw, write_plot
from lora_ext.study.ablation_summary import merge, seconds_per_step, summarise
from lora_ext.study.ablation_tables import variants_table, write_ablation_page
from lora_ext.study.markdown import NONE
from lora_ext.study.variants import plan_variants

BUNDLE = "brats_lora32"


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
            run["knobs"] |= variant.settings | {"pretrained": f"vit{run['seed']}.pt"}
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
    rows = [line.strip("| ").split(" | ") for line in variants_table(summary).splitlines()]
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
    assert "Pre-trained encoder of LoRA: `vit0.pt`, `vit1.pt`." in text
    assert "`epochs` 20" in text
    assert "lora_rank" not in text
    assert "- `rank8_classical: brats_lora32`, seed 0, fold 0: `RuntimeError" in text
    assert "| 1 (1 failed) |" in text
    for rule in ("alpha / √r", "`lora_alpha` is 8", "median time of a training epoch", "0.1 s"):
        assert rule in text


def test_a_variant_without_a_finished_run_is_a_row_of_dashes(variants, results, fail, tmp_path):
    results[1]["runs"] = [fail(run) for run in results[1]["runs"]]
    merged = merge(variants, results, BUNDLE)
    summary = summarise(variants, merged, BUNDLE)
    row = variants_table(summary).splitlines()[3].strip("| ").split(" | ")
    assert row[3:] == [*[NONE] * 7, "0 (2 failed)"]
    assert len(draw(summary).axes[0].get_legend_handles_labels()[0]) == 2
    write_plot(summary, tmp_path / "a.png")


def test_the_plot_has_a_line_per_scaling_and_a_dot_per_run(summary, tmp_path):
    figure = draw(summary)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert set(lines) == {"rank-stabilised: out_proj, linear1", "classical: out_proj, linear1"}
    line = lines["rank-stabilised: out_proj, linear1"]
    assert list(line.get_xdata()) == [8, 32]
    assert list(line.get_ydata()) == pytest.approx([0.51, 0.71])
    dots = [line for line in axes.lines if line.get_color() == "white"]
    assert [len(line.get_xdata()) for line in dots] == [2] * 5
    assert [text.get_text() for text in axes.texts] == ["qkv, out_proj"]
    assert axes.get_xscale() == "log"
    assert "vit0.pt, vit1.pt" in figure.get_supxlabel()
    assert write_plot(summary, tmp_path / "a.png").stat().st_size > 10_000


def test_placements_alone_are_drawn_without_a_line(make_run, tmp_path):
    variants = plan_variants(BUNDLE, 4, "classical", "qkv;linear2")[1:]
    results = [{"device": "cpu", "runs": [make_run("brats", "lora32")]} for _ in variants]
    summary = summarise(variants, merge(variants, results, BUNDLE), BUNDLE)
    figure = draw(summary)
    assert not figure.legends
    assert len(figure.axes[0].texts) == 2
