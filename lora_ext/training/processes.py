"""Several processes in one run, as torchrun starts them: one per GPU, or shares of the CPU's cores.

Every process holds the whole network and takes its share of each batch and of the validation
cases. Rank 0 alone writes files and speaks in the console (``configs/multi_gpu_train.json``).
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sized
from datetime import timedelta

import ignite.distributed as idist
import numpy as np
import torch
from torch import Tensor, distributed
from torch.distributed._functional_collectives import all_reduce

PATIENCE = timedelta(hours=1)  # rank 0 reads all files of a new data set while the others wait
COMMAND = "torchrun --standalone --nproc_per_node=2 -m monai.bundle run training ..."


def own_device() -> torch.device:
    """Choose this process's device: on each machine the GPU of its number there, or the CPU.

    Raises:
        ValueError: if the process was not started by torchrun, or there are fewer GPUs than
            processes on this machine.
    """
    local = _started("LOCAL_RANK")
    gpus = torch.cuda.device_count()
    if gpus == 0:
        return torch.device("cpu")
    if local >= gpus:
        raise ValueError(
            f"--nproc_per_node: found {_started('LOCAL_WORLD_SIZE')} processes on a machine with "
            f"{gpus} GPUs; allowed are as many as GPUs"
        )
    return torch.device("cuda", local)


def join(device: str | torch.device) -> None:
    """Meet the other processes; only rank 0 logs from now on.

    Args:
        device: where this process's network runs.

    Raises:
        ValueError: if the process was not started by torchrun.
    """
    local, cuda = _started("LOCAL_RANK"), torch.device(device).type == "cuda"
    if "SLURM_JOB_ID" in os.environ:  # where ignite 0.5.5 asks Slurm, whose task is the torchrun
        os.environ["SLURM_LOCALID"] = str(local)
    if cuda:
        index = torch.device(device).index
        torch.cuda.set_device(local if index is None else index)
    distributed.init_process_group(
        "nccl" if cuda else "gloo",
        timeout=PATIENCE,
        device_id=torch.device("cuda", torch.cuda.current_device()) if cuda else None,
    )
    if idist.get_rank() > 0:
        logging.disable(logging.ERROR)
    # Kernels of 1x1x1 come with other strides on their axes of length one, which mean nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")


def leave() -> None:
    """Leave the process group once all processes are done."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
    logging.disable(logging.NOTSET)


def own_seed(seed: int) -> int:
    """Give every process random numbers of its own.

    With one seed for all, every process would cut the same crops. Rank 0 keeps the run's seed:
    its initial weights, which ``DistributedDataParallel`` hands to all, are then those of a run in
    one process.

    Args:
        seed: the run's seed.
    """
    return (
        seed
        if idist.get_rank() == 0
        else int(np.random.SeedSequence([seed, idist.get_rank()]).generate_state(1)[0])
    )


def check_shares(cases: Sized) -> None:
    """Make sure that there is a validation case for every process.

    One without any would not take part when MONAI gathers the metrics, and the others would wait.

    Args:
        cases: the validation cases.

    Raises:
        ValueError: if there are fewer cases than processes.
    """
    count = idist.get_world_size()
    if len(cases) < count:
        raise ValueError(
            f"validation: found {len(cases)} cases for {count} processes; allowed are at least "
            "as many: start fewer processes, or lower --num_folds, so that a fold holds more cases"
        )


def sum_over_processes(values: Tensor) -> Tensor:
    """Add up a tensor over all processes; gradients flow back to each of them.

    Args:
        values: a tensor of one shape on all processes.

    Returns:
        The sum, the same everywhere. Backward adds up the processes' gradients likewise. So where
        every process computes the same loss from the sum, ``DistributedDataParallel``'s mean of
        the gradients is the gradient of that loss.
    """
    if idist.get_world_size() == 1:
        return values
    return all_reduce(values, "sum", distributed.group.WORLD)  # type: ignore[arg-type]


def _started(name: str) -> int:
    """A number that torchrun told this process."""
    if name not in os.environ:
        raise ValueError(
            f"multi_gpu_train.json: found no {name} in the environment; start it by {COMMAND}"
        )
    return int(os.environ[name])
