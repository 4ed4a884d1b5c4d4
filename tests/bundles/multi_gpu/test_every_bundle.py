"""The overlays of all bundles: read, and run for real."""

import json
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest
from monai.bundle import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver

from lora_ext.bundles.generator import PRETRAINING, all_facts
from lora_ext.phantoms import write_phantoms

NAMES = list(all_facts())


def merged(root, name, *files):
    parser = ConfigParser()
    parser.read_config([str(root / "bundles" / name / "configs" / f"{f}.json") for f in files])
    return parser


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("more", [[], ["multi_gpu_sharded"]], ids=["plain", "sharded"])
def test_overlay_fits_its_bundle(root, name, more):
    parser = merged(root, name, "train", "multi_gpu_train", *more)
    network = parser["network"]
    assert network["_target_"] == "torch.nn.parallel.DistributedDataParallel"
    assert set(network) == {"_target_", "module", "device_ids"}  # nothing about unused parameters
    assert parser["train::dataloader::shuffle"] is False
    assert parser["validate::sampler::even_divisible"] is False
    references = ReferenceResolver.find_refs_in_config(parser.get(), "")
    assert len(references) > 50
    assert [name for name in references if name not in parser] == []


@pytest.mark.parametrize("name", NAMES)
def test_overlay_starts_as_train_does_with_the_other_processes(root, name):
    one, two = (merged(root, name, *files)["started"] for files in
                (["train"], ["train", "multi_gpu_train"]))  # fmt: skip
    assert two == one | {"distributed": True}


@pytest.mark.slow
def test_every_bundle_trains_in_two_processes(root, tmp_path):
    for task in ("brats", "prostatex"):
        write_phantoms(task, tmp_path / "data" / task, cases=9, size=(32, 32, 16), test_cases=0)
    script = root / "tests" / "bundles" / "multi_gpu" / "every_bundle.py"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    places = [str(root / "bundles"), str(tmp_path / "data"), str(tmp_path)]
    done = subprocess.run(
        [*torchrun, "--nproc_per_node=2", str(script), *places, *free_ports(len(NAMES) + 1)],
        capture_output=True, encoding="utf-8", check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = (
        json.loads((tmp_path / f"rank{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)
    )
    assert set(one) == {*NAMES, f"{PRETRAINING}+multi_gpu_sharded"}
    for name, seen in one.items():
        assert seen["wrapped"], name
        assert not seen["find_unused_parameters"], name
        assert seen["steps"] > 2, name  # unused parameters fail in the second step
        assert two[name] == seen | {"rank": 1}
    sharded = one[f"{PRETRAINING}+multi_gpu_sharded"]
    assert sharded["optimizer"] == "ZeroRedundancyOptimizer"
    assert sharded["weights"] == one[PRETRAINING]["weights"]


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]
