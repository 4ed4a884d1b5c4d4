"""The benchmark's parts at a small size: what it counts, compares and writes."""

import json
import subprocess
import sys

import pytest
import torch

NAMES = {
    "encoder_forward", "encoder_forward_backward", "encoder_over_frozen_floor",
    "train_step_autocast", "train_step_float32", "train_step_both_float32", "train_peak_memory",
    "inference_window", "inference_case", "adapter_file", "bundle_start",
}  # fmt: skip


@pytest.fixture(autouse=True)
def importable(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "ci"))


@pytest.fixture
def bench():
    from benchmarking.limit import Rates
    from benchmarking.rows import Bench
    from benchmarking.sizes import SMALL

    rates = Rates(1e9, 1e9, 1e9)
    return Bench(SMALL, "small", torch.device("cpu"), 1, rates, rates)


def test_ours_and_the_peer_give_the_same(bench):
    from benchmarking.equality import FLOAT32_TOLERANCE, check_equal_outputs

    assert check_equal_outputs(bench)["float32"] < FLOAT32_TOLERANCE / 100


def test_a_peer_of_other_weights_is_found_out(bench, monkeypatch):
    from benchmarking import equality

    peer = bench.peer(bench.network())
    torch.nn.init.normal_(peer.unetr.out.conv.conv.weight)
    monkeypatch.setattr(type(bench), "peer", lambda self, network: peer)
    with pytest.raises(RuntimeError, match="outputs differ"):
        equality.check_equal_outputs(bench)


def test_both_sides_train_the_same_parameters_to_the_same_gradients(bench):
    network = bench.network()
    peer, (image, regions) = bench.peer(network), bench.batch()
    for module in (network, peer):
        (module(image) * regions).mean().backward()
    assert sum(p.numel() for p in network.trainable_parameters()) == sum(
        p.numel() for p in peer.trainable_parameters()
    )
    layer = network.encoder.blocks[1].mlp.linear1
    theirs = peer.encoder.base().get_submodule("blocks.1.mlp.linear1")
    for index, name in enumerate(peer.encoder.names):
        torch.testing.assert_close(
            layer.lora_A.grad[index], theirs.lora_A[name].weight.grad, atol=1e-6, rtol=1e-3
        )


def test_flop_and_windows_are_counted_right(bench):
    from benchmarking.limit import count
    from benchmarking.work import OVERLAP, count_windows
    from monai.data.utils import dense_patch_slices
    from monai.inferers.utils import _get_scan_interval

    a = torch.randn(8, 16)
    assert count(lambda: a @ a.T).products == 2 * 8 * 16 * 8
    kernel = torch.randn(3, 2, 1, 1, 1)
    work = count(lambda: torch.nn.functional.conv3d(torch.randn(1, 2, 4, 4, 4), kernel))
    assert (work.products, work.convolutions) == (0, 2 * 64 * 2 * 3)
    sizes = bench.sizes
    interval = _get_scan_interval(sizes.case, sizes.roi, 3, [OVERLAP] * 3)
    expected = len(dense_patch_slices(sizes.case, sizes.roi, interval))
    assert count_windows(sizes, sizes.case) == expected


def test_lean_inference_stays_in_the_box_of_the_head(bench):
    from benchmarking.work import whole_case

    network, case = bench.network().eval(), bench.sizes.whole_case()
    whole = whole_case(bench.sizes, network, case, lean=False)()
    lean = whole_case(bench.sizes, network, case, lean=True)()
    assert whole.shape[2:] == bench.sizes.case
    assert lean.shape[2:] == bench.sizes.head


@pytest.mark.slow
def test_every_row_is_written(root, tmp_path):
    out = tmp_path / "rows.json"
    command = [sys.executable, "ci/benchmark.py", "--size", "small", "--repeats", "1"]
    subprocess.run([*command, "--json", str(out)], cwd=root, check=True)
    rows = json.loads(out.read_text())
    assert {row["name"] for row in rows} == NAMES
    for row in rows:
        assert set(row) == {"name", "ours", "peer", "unit", "ratio", "share_of_limit"}
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])


@pytest.mark.slow
def test_scaling_is_plotted(root, tmp_path):
    command = [sys.executable, "ci/benchmark.py", "--size", "small", "--repeats", "1"]
    plot, out = tmp_path / "scaling.png", tmp_path / "scaling.json"
    subprocess.run([*command, "--scaling", str(plot), "--json", str(out)], cwd=root, check=True)
    assert plot.stat().st_size > 10_000
    assert {row["name"] for row in json.loads(out.read_text())} == {"channels", "rank", "roi"}


@pytest.mark.slow
def test_every_regime_is_measured_alone(root, tmp_path):
    out = tmp_path / "regimes.json"
    command = [sys.executable, "ci/benchmark.py", "--size", "small", "--repeats", "1"]
    subprocess.run([*command, "--regimes", "True", "--json", str(out)], cwd=root, check=True)
    rows = {row["name"]: row for row in json.loads(out.read_text())}
    assert set(rows) == {"baseline", "frozen", "lora16", "lora32", "lora64"}
    for row in rows.values():
        assert row["checkpointing"]["needed"] < row["plain"]["needed"] < row["plain"]["peak"]
