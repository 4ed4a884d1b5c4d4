"""The benchmark's parts at a small size: what it counts, compares and writes."""

import json

import pytest
import torch

NAMES = {
    "encoder_forward", "encoder_forward_backward", "encoder_over_frozen_floor",
    "train_step_autocast", "train_step_float32", "train_step_both_float32", "train_peak_memory",
    "inference_window", "inference_case", "adapter_file",
}  # fmt: skip


@pytest.fixture(autouse=True)
def importable(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))


@pytest.fixture
def bench():
    from benchmarking.measures import Rates
    from benchmarking.rows import Bench
    from benchmarking.work import SMALL

    rates = Rates(1e9, 1e9, 1e9)
    return Bench(SMALL, "small", torch.device("cpu"), 1, rates, rates)


def test_plain_accelerated_and_peer_give_the_same(bench):
    from benchmarking.rows import FLOAT32_TOLERANCE, OURS, check_equal_outputs

    found = check_equal_outputs(bench)
    assert set(found) == set(OURS)
    assert max(figures["float32"] for figures in found.values()) < FLOAT32_TOLERANCE / 100


def test_sides_of_other_weights_are_found_out(bench, monkeypatch):
    from benchmarking import rows

    original = type(bench).build

    def build(self, side):
        network = original(self, side)
        if side == "accelerated":
            torch.nn.init.normal_(network.decoder.out.conv.conv.weight)
        return network

    monkeypatch.setattr(type(bench), "build", build)
    with pytest.raises(RuntimeError, match=r"differ from the peer's \(accelerated\): expected"):
        rows.check_equal_outputs(bench)


@pytest.mark.parametrize("form", ["plain", "accelerated"])
def test_both_sides_train_the_same_parameters_to_the_same_gradients(bench, form):
    network, peer = bench.build(form), bench.build("peer")
    image, regions = bench.batch()
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
    from benchmarking.measures import count
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

    network, case = bench.build("accelerated").eval(), bench.sizes.whole_case()
    whole = whole_case(bench.sizes, network, case, lean=False)()
    lean = whole_case(bench.sizes, network, case, lean=True)()
    assert whole.shape[2:] == bench.sizes.case
    assert lean.shape[2:] == bench.sizes.head


@pytest.mark.slow
def test_every_row_is_written(tmp_path):
    from benchmark import main

    out = tmp_path / "rows.json"
    main(size="small", repeats=1, json=str(out), rows="encoder,training,memory,inference,file")
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert {row["name"] for row in rows} == NAMES
    for row in rows:
        assert set(row) == {
            "name", "unit", "peer", "plain", "accelerated", "share_of_limit",
            "plain_to_peer", "accelerated_to_peer", "accelerated_to_plain",
        }  # fmt: skip
        assert row["accelerated_to_plain"] == pytest.approx(row["accelerated"] / row["plain"])


def test_start_is_a_row_of_three_new_processes(bench, monkeypatch):
    from benchmarking import rows

    started = []
    monkeypatch.setattr(rows.work, "start", lambda side, device: lambda: started.append(side))
    (row,) = rows.start_row(bench)
    assert row.name == "bundle_start"
    assert set(started) == {"peer", "plain", "accelerated"}


@pytest.mark.slow
@pytest.mark.parametrize("side", ["peer", "accelerated"])
def test_new_process_builds_the_network(side):
    from benchmarking.work import start

    assert start(side, torch.device("cpu"))().returncode == 0


@pytest.mark.slow
def test_scaling_is_plotted(tmp_path):
    from benchmark import main

    plot, out = tmp_path / "scaling.png", tmp_path / "scaling.json"
    main(size="small", repeats=1, scaling=str(plot), json=str(out))
    assert plot.stat().st_size > 10_000
    assert {row["name"] for row in json.loads(out.read_text(encoding="utf-8"))} == {
        "channels",
        "rank",
        "roi",
    }


@pytest.mark.slow
def test_every_regime_is_measured_alone(tmp_path, monkeypatch):
    from benchmark import main
    from benchmarking import growth
    from benchmarking.work import SMALL

    def here(name, size, device):  # the memory row of the test above starts real processes
        assert size == "small"
        return growth.measure_alone(name, SMALL, torch.device(device))

    monkeypatch.setattr(growth, "in_own_process", here)
    out = tmp_path / "regimes.json"
    main(size="small", repeats=1, regimes=True, json=str(out))
    rows = {row["name"]: row for row in json.loads(out.read_text(encoding="utf-8"))}
    assert set(rows) == {"baseline", "frozen", "lora16", "lora32", "lora64"}
    for row in rows.values():
        assert row["checkpointing"]["needed"] < row["plain"]["needed"] < row["plain"]["peak"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"size": "huge"}, "--size: expected paper or small, got 'huge'"),
        ({"rows": "encoder,other"}, r"--rows: expected some of encoder, .*, got \['encoder', 'oth"),
    ],
)
def test_unknown_setting_is_an_error(wrong, sentence):
    from benchmark import main

    with pytest.raises(ValueError, match=sentence):
        main(**wrong)
