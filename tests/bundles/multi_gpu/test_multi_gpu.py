"""Two processes (gloo, on the CPU) against one process with the doubled batch."""

import re
from collections import Counter

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.slow

# Adam divides a gradient by its own size: where one is zero but for rounding (as that of a bias
# before a norm is), rounding becomes a whole step. In float64 it takes more steps to be seen; the
# auto-encoder's loss is float32, so there Adam's eps is raised.
DOUBLE = {"_target_": "EnsureTyped", "keys": ["image", "label"], "dtype": "$torch.float64"}
FLOAT64 = {"+train#random_transforms": [DOUBLE], "+validate#region_transforms": [DOUBLE]}
NETWORK = {1: "network", 2: "network#module"}
UNSHUFFLED = {1: {"train#dataloader#shuffle": False}, 2: {"train#sampler#shuffle": False}}
TOLERANCES = {  # of the loss (relative) and of the weights (absolute)
    "brats_lora32": (1e-14, 1e-11),
    "brats_finetune": (1e-14, 1e-11),
    "mae_pretrain": (1e-6, 5e-6),
}


@pytest.fixture(scope="module")
def runs(launch):
    """A function that gives a bundle's run in one and in two processes, made once."""
    made = {}

    def train(name, processes):
        if name == "mae_pretrain":
            return launch(name, processes, **UNSHUFFLED[processes], **{"optimizer#eps": 1e-3})
        network = {NETWORK[processes]: "$@network_def.double().to(@device)"}
        return launch(name, processes, extra=FLOAT64 | network, **UNSHUFFLED[processes])

    def get(name):
        if name not in made:
            made[name] = [train(name, processes) for processes in (1, 2)]
            for run in made[name]:
                assert run.done.returncode == 0, run.done.stderr
        return made[name]

    return get


@pytest.mark.parametrize("name", TOLERANCES)
def test_two_processes_train_as_one_with_the_doubled_batch(runs, name):
    one, two = runs(name)
    single, ranks = one.rank(0), [two.rank(0), two.rank(1)]
    pairs = [[*a, *b] for a, b in zip(*(rank["case"] for rank in ranks), strict=True)]
    assert pairs == single["case"]
    images = [torch.cat(pair) for pair in zip(*(rank["image"] for rank in ranks), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(images, single["image"], strict=True))
    loss_tolerance, tolerance = TOLERANCES[name]
    for rank in ranks:
        assert rank["loss"] == pytest.approx(single["loss"], rel=loss_tolerance)
        assert_weights(rank["start"], single["start"], 0)
        assert_weights(rank["end"], single["end"], tolerance)
        assert_weights(rank["end"], ranks[0]["end"], 0)
    moved = [(single["end"][k] - v).abs().max() for k, v in single["start"].items()]
    assert max(moved) > 200 * tolerance


def assert_weights(weights, others, tolerance):
    assert weights.keys() == others.keys()
    for key, value in weights.items():
        torch.testing.assert_close(value, others[key], rtol=0, atol=tolerance, msg=key)


@pytest.mark.parametrize("name", TOLERANCES)
def test_learning_rate_follows_the_same_schedule(runs, name):
    one, two = (run.rank(0) for run in runs(name))
    assert two["steps"] == one["steps"]
    assert two["rate"] == one["rate"]
    assert len(set(two["rate"])) == len(two["rate"]) == 2 * two["steps"]


@pytest.mark.parametrize("name", TOLERANCES)
def test_validation_is_gathered_from_all_processes(runs, name):
    one, two = runs(name)
    single, ranks = one.rank(0), [two.rank(0), two.rank(1)]
    shares = [set(rank["held"]) for rank in ranks]
    assert not shares[0] & shares[1]
    assert shares[0] | shares[1] == set(single["held"])
    assert (len(shares[0]) == len(shares[1])) == (name == "mae_pretrain")  # 12 volumes, 3 cases
    assert ranks[0]["metrics"] == ranks[1]["metrics"]
    for together, alone in zip(ranks[0]["metrics"], single["metrics"], strict=True):
        assert together == pytest.approx(alone, rel=TOLERANCES[name][0])
        assert {"val_pooled_dice", "TC", "WT", "ET"} <= set(alone) or name == "mae_pretrain"


@pytest.mark.parametrize("name", ["brats_lora32", "mae_pretrain"])
def test_only_rank_0_writes_and_it_writes_what_one_process_does(runs, name):
    one, two = runs(name)
    assert two.writes(1) == []
    assert Counter(map(settled, two.writes(0))) == Counter(map(settled, one.writes(0)))
    assert files(two) == files(one) > {"models/model.pt", "models/network.json"}


def settled(text):
    """Without random names, times, and the name of a drawn volume: rank 0 draws of its share."""
    text = re.sub(r"(\.\w[\w.]*)\.\w{8}(?=\.draft|/|$)", r"\1.*", text)
    text = re.sub(r"brats_\d+_[A-Za-z0-9]+\.png", "volume.png", text)
    return re.sub(r"tfevents\.[\w.-]+", "tfevents", text)


def files(run):
    below = (path for part in ("models", "eval") for path in (run.folder / part).rglob("*"))
    names = {settled(path.relative_to(run.folder).as_posix()) for path in below}
    return {name for name in names if not name.startswith("eval/rank")}


@pytest.mark.parametrize("name", ["brats_lora32", "mae_pretrain"])
def test_tensorboard_holds_what_one_process_logs(runs, name):
    one, two = (scalars(run.folder / "eval") for run in runs(name))
    assert two.keys() == one.keys()
    for tag, values in two.items():
        assert values == pytest.approx(one[tag], rel=1e-5), tag


def scalars(folder):
    found = {}
    for path in folder.glob("events.*"):
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["scalars"]:
            assert tag not in found
            found[tag] = {event.step: event.value for event in events.Scalars(tag)}
    return found


@pytest.mark.parametrize("name", ["brats_lora32", "mae_pretrain"])
def test_console_is_that_of_one_process(runs, name):
    one, two = ([*map(spoken, log_lines(run.done.stdout))] for run in runs(name))
    assert two == one
    assert sum("reading 9 cases" in line for line in log_lines(runs(name)[1].done.stdout)) == 1
    assert len(one) > 5


def log_lines(text):
    """The lines of the run; MONAI's greeting, with dates, comes before the processes have met."""
    return [line for line in text.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]


def spoken(line):
    return re.sub(r"[\d.]+ s$|^\S+", "TIME", line)


@pytest.mark.parametrize("name", TOLERANCES)
def test_nothing_is_warned_of(runs, name):
    said = [line for line in runs(name)[1].done.stderr.splitlines() if line]
    assert all(line.startswith("parsing config_file") for line in said), said  # MONAI's warning
