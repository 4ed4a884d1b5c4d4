"""``--tracking mlflow`` in several processes."""

import pytest

pytestmark = pytest.mark.slow


def test_rank_zero_alone_logs_to_one_run(launch, read_runs):
    run = launch("brats_lora16", 2, inert=False, tracking="mlflow")
    assert run.done.returncode == 0, run.done.stderr
    (tracked,) = read_runs(f"sqlite:///{run.folder}/eval/mlruns.db")
    assert tracked["status"] == "FINISHED"
    assert tracked["params"]["regime"] == "lora"
    steps = [step for step, _ in tracked["metrics"]["train_loss"]]
    assert steps == list(range(1, 7))  # two epochs of three batches, each step once
    assert [step for step, _ in tracked["metrics"]["val_pooled_dice"]] == [1, 2]
    # MONAI writes the executed config before the processes know each other
    own = [line for line in run.writes(1) if line != "os.mkdir eval" and "eval/config_" not in line]
    assert own == []
