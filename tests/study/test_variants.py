"""Which variants an ablation runs, and how they are named."""

from __future__ import annotations

import inspect

import pytest
from monai.networks.nets import ViT
from torch import nn

from lora_ext.__main__ import ablation
from lora_ext.networks.lora import SCALINGS
from lora_ext.study import run_ablation
from lora_ext.study.variants import PLACEMENTS, RANKS, TARGETS, plan_variants

BOTH = "rank_stabilised,classical"


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
    assert [v.default for v in variants] == [True, False]


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
        for f in (ablation, run_ablation)
    )
    assert shown == own


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"ranks": "0,4"}, "ranks: found 0; allowed are whole numbers from 1 on"),
        ({"ranks": ""}, "ranks: found ''; allowed are whole numbers"),
        (
            {"scalings": "rslora"},
            "scalings: found 'rslora'; allowed are rank_stabilised, classical",
        ),
        ({"scalings": ""}, "scalings: found ''; allowed are rank_stabilised, classical"),
        ({"placements": "qkv;fc1"}, "placements: found fc1; allowed are qkv, out_proj, linear1, "),
        ({"bundle": "brats_frozen"}, "bundle: found 'brats_frozen'; allowed are brats_lora16, "),
    ],
)
def test_bad_requests_name_the_allowed_values(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan(**arguments)
