"""``docs/slurm_train.sh`` with Slurm's variables, and both machines on this one.

``srun`` and ``scontrol`` are short scripts here that do what the manual says those do: start the
command once per machine, and name the machines. torchrun, its two agents and their meeting over
the loopback are the real ones.
"""

import os
import subprocess

import pytest

SRUN = """#!/usr/bin/env bash
shift  # --kill-on-bad-exit=1
started=()
for node in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do
  SLURM_NODEID=$node SLURM_PROCID=$node SLURM_LOCALID=0 "$@" > "node$node.txt" 2> errors.txt &
  started+=($!)
done
for pid in "${started[@]}"; do wait "$pid" || failed=1; done
exit "${failed:-0}"
"""
SHOW = '#!/usr/bin/env bash\nshift; printf "%s\\n" "$@"\n'
SCONTROL = '#!/usr/bin/env bash\n[ "$1 $2" = "show hostnames" ] && tr , "\\n" <<< "$3"\n'
JOB = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "127.0.0.1,localhost",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_GPUS_ON_NODE": "1",
    "SLURM_CPUS_PER_TASK": "8",
}
SMALL = [
    *("--roi_size", "[32,32,16]", "--feature_size", "4", "--hidden_size", "24", "--mlp_dim", "32"),
    *("--num_layers", "2", "--num_heads", "2", "--num_workers", "0", "--sw_overlap", "0.0"),
    *("--epochs", "1", "--batch_size", "1", "--crops_per_case", "1", "--pretrained", "none"),
]


@pytest.fixture
def submit(root, tmp_path):
    """A function that runs the script as Slurm would run it."""

    def run(*arguments, srun=SHOW, **variables):
        for name, text in (("srun", srun), ("scontrol", SCONTROL)):
            (tmp_path / name).write_text(text, encoding="utf-8")
            (tmp_path / name).chmod(0o755)
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        paths = {"PATH": path, "PYTHONPATH": str(root)}
        inherited = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        return subprocess.run(
            ["bash", str(root / "docs" / "slurm_train.sh"), *map(str, arguments)],
            capture_output=True, encoding="utf-8", check=False, timeout=300, cwd=tmp_path,
            env={**inherited, **paths, **variables},
        )  # fmt: skip

    return run


def test_script_is_sound_shell(root):
    script = root / "docs" / "slurm_train.sh"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def test_each_machine_starts_torchrun_with_a_process_per_gpu(submit, root):
    done = submit(root / "bundles" / "brats_frozen", "--fold", "3", **JOB)
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[:3] == ["torchrun", "--nnodes=2", "--nproc_per_node=1"]
    assert "--rdzv_endpoint=127.0.0.1:24711" in words
    assert words[-4:] == ["--resume", "False", "--fold", "3"]
    assert "brats_frozen/configs/multi_gpu_train.json']" in done.stdout


def test_job_that_slurm_starts_again_goes_on(submit, root):
    done = submit(root / "bundles" / "brats_frozen", SLURM_RESTART_COUNT="1", **JOB)
    assert done.stdout.splitlines()[-2:] == ["--resume", "True"]


def test_what_is_missing_is_named(submit, tmp_path):
    assert "the folder of a bundle comes first" in submit(**JOB).stderr
    assert "found no configs/multi_gpu_train.json" in submit(tmp_path, **JOB).stderr
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "multi_gpu_train.json").touch()
    without = {k: v for k, v in JOB.items() if k != "SLURM_GPUS_ON_NODE"}
    assert "no GPU was granted" in submit(tmp_path, **without).stderr


@pytest.mark.slow
def test_two_machines_train_one_network(submit, root, tmp_path, nine_cases):
    places = ["--ckpt_dir", tmp_path / "models", "--output_dir", tmp_path / "eval"]
    data = ["--dataset_dir", nine_cases, "--num_folds", 3]
    bundle = root / "bundles" / "brats_lora32"
    done = submit(bundle, *SMALL, *places, *data, srun=SRUN, **JOB | {"SLURM_CPUS_PER_TASK": "1"})
    assert done.returncode == 0, (tmp_path / "errors.txt").read_text(encoding="utf-8")
    said = [(tmp_path / f"node{node}.txt").read_text(encoding="utf-8") for node in (0, 1)]
    speaker = said[0] if "epoch 1/1" in said[0] else said[1]  # whoever came first has rank 0
    other = said[1] if speaker is said[0] else said[0]
    assert "6 training cases, 3 for validation" in speaker
    assert "epoch 1/1: validation pooled_dice" in speaker
    assert "epoch" not in other
    assert (tmp_path / "models" / "model.pt").is_file()
