#!/usr/bin/env bash
# The miniature study at the paper's size (ViT-Base, roi 128x128x48, feature size 64) on one GPU:
# phantoms, pre-training, six regimes x two tasks. Everything lands in gpu_study/ (or $1) and goes
# on where it was when the script is run again. It was written without a GPU at hand.
#
# Usage: bash ci/gpu_study.sh [FOLDER] [--flags of `study`, such as --seeds 0,1,2 --epochs 100]
# Sizes from the environment: VOLUMES (cases per task to pre-train on), PRETRAIN_EPOCHS, EPOCHS.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/environment.sh run

out="${1:-gpu_study}"
[ $# -gt 0 ] && shift
volumes="${VOLUMES:-200}"
mkdir -p "$out"

for task in brats prostatex; do
  python -m lora_ext phantom --task $task --out "$out/unlabelled/phantom_$task" \
    --cases "$volumes" --seed 1000 --test_cases 0
  python -m lora_ext phantom --task $task --out "$out/phantoms/phantom_$task" \
    --cases 32 --seed 0 --test_cases 0
done

encoder="$out/encoder/encoder.safetensors"
if [ ! -f "$out/encoder/finished" ]; then
  python -m monai.bundle run training --config_file bundles/mae_pretrain/configs/train.json \
    --dataset_dir "$out/unlabelled" --ckpt_dir "$out/encoder" --output_dir "$out/pretraining" \
    --num_folds 20 --spacing "[0,0,0]" --epochs "${PRETRAIN_EPOCHS:-100}" --batch_size 32 \
    --crops_per_case 1 --cache_rate 1.0 --resume True
  touch "$out/encoder/finished"
fi

python -m lora_ext study --data_dir "$out/phantoms" --out "$out/study" --pretrained "$encoder" \
  --num_folds 2 --training_cases 8 --epochs "${EPOCHS:-60}" --val_interval "${EPOCHS:-60}" \
  --batch_size 2 --crops_per_case 1 --cache_rate 1.0 "$@"
