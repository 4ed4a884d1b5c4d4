"""What a run records of its device."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine

from lora_ext.study import DeviceRecord


def run_on(device, path):
    """One epoch of an engine that says it runs on a device."""
    engine = Engine(lambda engine, batch: None)
    engine.state.device = torch.device(device)
    DeviceRecord(path).attach(engine)
    engine.run([0], max_epochs=1)
    return json.loads(path.read_text())


def test_on_the_cpu_the_peak_is_the_resident_size(tmp_path):
    pytest.importorskip("resource")
    record = run_on("cpu", tmp_path / "device.json")
    if not Path("/proc/self/status").is_file():
        pytest.skip("this system has no /proc/self/status to compare with")
    lines = Path("/proc/self/status").read_text().splitlines()
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
