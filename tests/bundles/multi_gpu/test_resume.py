"""Killed and resumed runs of two processes, with the optimizer's state on each or sharded."""

import pytest
import torch

from lora_ext.data import read_task

pytestmark = pytest.mark.slow

NAME = "brats_finetune"  # two groups of learning rates, and everything is trained
QUIET = {"train#sampler#shuffle": False, "encoder_learning_rate": 0.001}


@pytest.fixture(scope="module")
def whole(launch):
    """An unbroken run."""
    run = launch(NAME, 2, **QUIET)
    assert run.done.returncode == 0, run.done.stderr
    return run


@pytest.fixture(scope="module")
def sharded(launch):
    """An unbroken run with ZeRO's optimizer."""
    run = launch(NAME, 2, "multi_gpu_sharded", **QUIET)
    assert run.done.returncode == 0, run.done.stderr
    return run


def test_sharding_the_optimizer_changes_no_number(whole, sharded):
    for rank in (0, 1):
        ours, theirs = sharded.rank(rank), whole.rank(rank)
        assert ours["loss"] == theirs["loss"]
        assert ours["metrics"] == theirs["metrics"]
        assert all(torch.equal(v, theirs["end"][k]) for k, v in ours["end"].items())


def test_sharding_divides_the_optimizers_state(whole, sharded):
    every = whole.rank(0)["state_bytes"]
    shares = [sharded.rank(rank)["state_bytes"] for rank in (0, 1)]
    assert sum(shares) == every
    assert max(shares) < 0.7 * every  # whole tensors, of which so small a network has few


def test_checkpoint_of_a_sharded_run_is_whole(whole, sharded):
    ours, theirs = (torch.load(run.folder / "models" / "last.ckpt") for run in (sharded, whole))
    states = ours["optimizer"]["state"], theirs["optimizer"]["state"]
    assert states[0].keys() == states[1].keys()
    for key, state in states[0].items():
        assert all(torch.equal(value, states[1][key][name]) for name, value in state.items())


@pytest.mark.parametrize("overlays", [[], ["multi_gpu_sharded"]], ids=["plain", "sharded"])
def test_killed_and_resumed_run_ends_where_an_unbroken_one_does(launch, whole, overlays):
    cut = launch(NAME, 2, *overlays, probe={"kill_after": 1}, **QUIET)
    assert cut.done.returncode != 0
    assert "epoch 2/2" not in cut.done.stdout
    resumed = launch(NAME, 2, *overlays, folder=cut.folder, resume=True, **QUIET)
    assert resumed.done.returncode == 0, resumed.done.stderr
    assert resumed.done.stdout.count("resumed from") == 1
    for rank in (0, 1):
        ours, theirs = resumed.rank(rank), whole.rank(rank)
        assert ours["rate"] == theirs["rate"][theirs["steps"] :]
        assert ours["metrics"] == theirs["metrics"][1:]
        assert all(torch.equal(v, theirs["end"][k]) for k, v in ours["end"].items())


@pytest.fixture
def copies(nine_cases, tmp_path):
    """A task of nine cases that are all the same: only chance tells their crops apart."""
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        for case in read_task(nine_cases).training:
            first = nine_cases / folder / "brats_0001.nii.gz"
            (tmp_path / folder / case.image.name).symlink_to(first)
    (tmp_path / "dataset.json").write_text(
        (nine_cases / "dataset.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    return tmp_path


def test_processes_share_weights_and_draw_their_own_crops_also_when_resumed(launch, copies):
    cut = launch(NAME, 2, inert=False, dataset_dir=copies, probe={"kill_after": 1})
    one, two = cut.rank(0), cut.rank(1)
    assert all(torch.equal(v, two["start"][k]) for k, v in one["start"].items())
    assert differ(one["image"], two["image"])
    settings = {"inert": False, "dataset_dir": copies, "num_workers": 1}
    resumed = launch(NAME, 2, folder=cut.folder, resume=True, **settings)
    assert resumed.done.returncode == 0, resumed.done.stderr
    assert differ(resumed.rank(0)["image"], resumed.rank(1)["image"])


def differ(images, others):
    assert len(images) == len(others) == 3
    return not any(torch.equal(a, b) for a, b in zip(images, others, strict=True))
