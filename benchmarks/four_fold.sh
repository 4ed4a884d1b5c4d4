#!/usr/bin/env bash
# Cross-validation on a few patients of your own: for every fold an encoder is pre-trained on every
# channel of its training patients, then regimes and a plain SegResNet are trained and compared.
# Run again, it resumes.
#
# Usage: bash benchmarks/four_fold.sh TASK_FOLDER OUT [--flags of `study`]
# From the environment: FOLDS (default 4), MODALITIES, BUNDLES, EPOCHS, PRETRAIN_EPOCHS.
# The network is small and voxels are 2 mm, so that two cores do. At these sizes a training step of
# the UNETR and of SegResNet takes about the same time.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/environment.sh run

task="$1" out="$2"
shift 2
folds="${FOLDS:-4}"
modalities="${MODALITIES:-['FLAIR','t1gd']}"
bundles="${BUNDLES:-brats_baseline,brats_finetune,brats_lora32}"
encoder_size=(--roi_size "[48,48,48]" --spacing "[2,2,2]" --hidden_size 192 --mlp_dim 768
              --num_layers 6 --num_heads 6 --num_folds "$folds" --cache_rate 1.0 --num_workers 0)

for fold in $(seq 0 $((folds - 1))); do
  encoder="$out/encoder/fold$fold"
  [ -f "$encoder/finished" ] && continue
  python -m monai.bundle run training --config_file bundles/mae_pretrain/configs/train.json \
    --dataset_dir "$task" --ckpt_dir "$encoder" --output_dir "$out/pretraining/fold$fold" \
    "${encoder_size[@]}" --fold "$fold" --batch_size 2 --crops_per_case 4 --learning_rate 0.001 \
    --epochs "${PRETRAIN_EPOCHS:-600}" --val_interval 100 --resume True \
    --decoder_hidden_size 96 --decoder_mlp_dim 384 --decoder_num_layers 2 --decoder_num_heads 4
  touch "$encoder/finished"
done

python -m lora_ext study --data_dir "$task" --out "$out/study" --bundles "$bundles" \
  --folds "$(seq -s, 0 $((folds - 1)))" --reference segresnet --modalities "$modalities" \
  --pretrained "$out/encoder/fold{fold}/encoder.safetensors" "${encoder_size[@]}" \
  --encoder_learning_rate 0.0005 --feature_size 16 --epochs "${EPOCHS:-80}" --val_interval 40 \
  --batch_size 1 --crops_per_case 1 "$@"
