import json
import subprocess
import sys

import pytest

from lora_ext.bundles.parameter_table import parameter_table
from lora_ext.networks.parameters import PAPER_TABLE_2, parameter_report

# encoder, fusion + decoder, adapters, total, trainable (DESIGN section 2)
BRATS = {
    "baseline": (88_322_304, 54_577_347, 0, 142_899_651, 142_899_651),
    "finetune": (88_322_304, 54_577_347, 0, 142_899_651, 142_899_651),
    "frozen": (88_322_304, 54_577_347, 0, 142_899_651, 54_577_347),
    "lora16": (88_322_304, 54_577_347, 4_128_768, 147_028_419, 58_706_115),
    "lora32": (88_322_304, 54_577_347, 8_257_536, 151_157_187, 62_834_883),
    "lora64": (88_322_304, 54_577_347, 16_515_072, 159_414_723, 71_092_419),
}
PROSTATE_ADAPTERS = {"lora16": 2_064_384, "lora32": 4_128_768, "lora64": 8_257_536}
COLUMNS = ("encoder", "fusion_decoder", "adapters", "total", "trainable")


@pytest.fixture(scope="module")
def table():
    return parameter_table()


def test_table_has_exactly_the_twelve_bundles(table):
    assert set(table) == {f"{d}_{r}" for d in ("brats", "prostatex") for r in BRATS}


@pytest.mark.parametrize("regime", BRATS)
def test_brats_counts_are_exact(table, regime):
    assert tuple(table[f"brats_{regime}"][c] for c in COLUMNS) == BRATS[regime]


@pytest.mark.parametrize("regime", BRATS)
def test_prostate_counts_are_exact(table, regime):
    row = table[f"prostatex_{regime}"]
    assert row["fusion_decoder"] == 49_855_106
    assert row["encoder"] == 88_322_304
    assert row["adapters"] == PROSTATE_ADAPTERS.get(regime, 0)


@pytest.mark.parametrize("bundle", PAPER_TABLE_2)
def test_trainable_counts_match_the_paper_and_its_arithmetic_gives_its_totals(table, bundle):
    row = table[bundle]
    assert row["trainable"] / 1e6 == pytest.approx(row["paper"]["trainable"], abs=0.0101)
    for column, cell in row["paper"].items():
        assert row["paper_arithmetic"][column] / 1e6 == pytest.approx(cell, abs=0.0121)


def test_report_counts_what_torch_counts(small_network):
    network = small_network()
    report = parameter_report(network)
    assert report.total == sum(p.numel() for p in network.parameters())
    assert report.trainable == sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert report.encoder == report.total - report.trainable
    assert f"{report.total:,}" in str(report)


def test_command_prints_the_same_integers_as_json(table, root):
    command = [sys.executable, "-m", "lora_ext", "params", "--json"]
    out = subprocess.run(
        command, capture_output=True, encoding="utf-8", check=True, cwd=root
    ).stdout
    assert json.loads(out) == table


def test_command_prints_a_table_with_the_papers_cells(root):
    command = [sys.executable, "-m", "lora_ext", "params"]
    out = subprocess.run(
        command, capture_output=True, encoding="utf-8", check=True, cwd=root
    ).stdout
    assert "62.835" in out
    assert "157.35" in out
