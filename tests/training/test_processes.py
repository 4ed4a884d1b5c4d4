import json
import time

import ignite.distributed as idist
import pytest
import torch

from lora_ext.training import processes

TWO = """
import json, logging, sys
from pathlib import Path
import ignite.distributed as idist
import torch
from torch import distributed
from lora_ext.training import processes

logging.basicConfig(stream=sys.stdout, level=logging.INFO)
processes.join("cpu")
rank = idist.get_rank()
logging.error("heard from %d", rank)

x = torch.tensor([1.0 + rank, 2.0], requires_grad=True)  # [1, 2] and [2, 2]
total = processes.sum_over_processes(x**2)
total.prod().backward()
with idist.one_rank_first():
    found = Path("written").exists()
    Path("written").touch()
refusal = ""
try:
    processes.check_shares(["one case"])
except ValueError as error:
    refusal = str(error)
seen = dict(
    count=idist.get_world_size(), seed=processes.own_seed(7), gathered=idist.all_gather(10 + rank),
    total=total.tolist(), gradient=x.grad.tolist(), found=found, refusal=refusal,
    device=str(processes.own_device()),
)
Path(f"{rank}.json").write_text(json.dumps(seen), encoding="utf-8")
processes.leave()
assert not distributed.is_initialized()
"""


def test_one_process_alone_needs_no_torchrun():
    values = torch.ones(3, requires_grad=True)
    assert processes.own_seed(5) == 5
    assert processes.sum_over_processes(values) is values
    processes.check_shares(["one case"])
    processes.leave()


def test_two_processes(in_two_processes, tmp_path):
    done = in_two_processes(TWO)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == "ERROR:root:heard from 0\n"
    one, two = (
        json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)
    )
    assert one["seed"] == 7
    assert two["seed"] != 7
    assert [one["found"], two["found"]] == [False, True]
    for rank, seen in enumerate((one, two)):
        assert seen["count"] == 2
        assert seen["gathered"] == [10, 11]
        assert seen["total"] == [5.0, 8.0]
        # twice the gradient of the product of sums: DistributedDataParallel takes the mean
        assert seen["gradient"] == [2 * 8.0 * 2 * (1 + rank), 2 * 5.0 * 2 * 2]
        assert "found 1 cases for 2 processes; allowed are at least as many" in seen["refusal"]


@pytest.mark.parametrize("start", [processes.own_device, lambda: processes.join("cpu")])
def test_process_that_torchrun_did_not_start_is_refused(monkeypatch, start):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ValueError, match=r"found no LOCAL_RANK.*start it by torchrun"):
        start()


def test_each_process_of_a_machine_takes_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert processes.own_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="found 3 processes on a machine with 2 GPUs"):
        processes.own_device()


def test_seeds_of_runs_and_processes_do_not_meet(monkeypatch):
    seeds = set()
    for rank in range(8):
        monkeypatch.setattr(idist, "get_rank", lambda rank=rank: rank)
        seeds |= {processes.own_seed(seed) for seed in range(50)}
    assert len(seeds) == 8 * 50
    assert all(0 <= seed < 2**32 for seed in seeds)  # what numpy takes


SLURM = """
import os
import ignite.distributed as idist
from lora_ext.training import processes

local = int(os.environ["LOCAL_RANK"])
os.environ["SLURM_JOB_ID"] = "4711"
os.environ |= {"SLURM_LOCALID": "0"} if {given} else {}
processes.join("cpu")
assert idist.get_local_rank() == local == int(os.environ["LOCAL_RANK"])
assert idist.get_nproc_per_node() == 2
processes.leave()
"""


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False], ids=["in_srun", "in_salloc"])
def test_ignite_counts_processes_as_torchrun_does_inside_slurm_too(in_two_processes, given):
    done = in_two_processes(SLURM.replace("{given}", str(given)))
    assert done.returncode == 0, done.stderr


def test_an_error_of_rank_0_keeps_the_others_out(in_two_processes, tmp_path):
    started = time.monotonic()
    done = in_two_processes(
        "from pathlib import Path\n"
        "import ignite.distributed as idist\n"
        "from lora_ext.training import processes\n"
        "processes.join('cpu')\n"
        "with idist.one_rank_first():\n"
        "    Path(f'entered{idist.get_rank()}').touch()\n"
        "    raise ValueError('no')\n"
    )
    assert done.returncode != 0
    assert [path.name for path in tmp_path.glob("entered*")] == ["entered0"]
    assert time.monotonic() - started < 100
