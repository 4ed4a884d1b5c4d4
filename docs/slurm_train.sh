#!/usr/bin/env bash
# Train a bundle on all GPUs of several machines under Slurm. Arguments: the bundle, then its flags:
#   sbatch docs/slurm_train.sh bundles/brats_lora32 --dataset_dir DATA --pretrained ENCODER
# One torchrun per machine starts one process per GPU. DATA, the encoder and the bundle's folder
# must be on a file system that all machines share.
#SBATCH --job-name=lora_ext
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

bundle="${1:?the folder of a bundle comes first}"
shift
train="$bundle/configs/train.json"
multi_gpu="$bundle/configs/multi_gpu_train.json"
[ -f "$multi_gpu" ] || { echo "$bundle: found no configs/multi_gpu_train.json" >&2; exit 2; }

processes="${SLURM_GPUS_ON_NODE:?no GPU was granted: give --gpus-per-node}"
meeting_place="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs on one machine must not meet
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((${SLURM_CPUS_PER_TASK:-processes} / processes))}"
resume=False
[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && resume=True # Slurm started this job again

srun --kill-on-bad-exit=1 torchrun \
  --nnodes="$SLURM_JOB_NUM_NODES" --nproc_per_node="$processes" \
  --rdzv_backend=c10d --rdzv_id="$SLURM_JOB_ID" --rdzv_endpoint="$meeting_place:$port" \
  -m monai.bundle run training --config_file "['$train','$multi_gpu']" --resume "$resume" "$@"
