#!/usr/bin/env bash
# From nothing to a picture: environment, phantoms, pre-training, training, evaluation, inference.
# Everything lands in demo/. docs/measured.md says how long it took.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/environment.sh run

out=demo
configs=bundles/brats_lora32/configs
pretraining=bundles/mae_pretrain/configs/train.json
encoder=$out/encoder/encoder.safetensors
data=(--dataset_dir $out/phantom_brats --ckpt_dir $out/models)
# a small network, so that a laptop trains it; the bundles' defaults are the paper's sizes
encoder_size=(--roi_size "[64,64,32]" --hidden_size 96 --mlp_dim 192 --num_layers 4 --num_heads 4
              --num_workers 0 --cache_rate 1.0 --crops_per_case 1)
small=("${encoder_size[@]}" --feature_size 16)

step() { printf '\n== %s\n' "$*"; }

rm -rf $out/models $out/eval $out/segmentations $out/encoder $out/pretraining
step "1/6 phantoms: 48 without labels to pre-train on, and 24 with labels; four channels each"
python -m lora_ext phantom --task brats --out $out/unlabelled --cases 48 --seed 1 --size 64,64,32
python -m lora_ext phantom --task brats --out $out/phantom_brats --cases 24 --seed 0 --size 64,64,32

step "2/6 pre-training a small encoder on 192 single-channel volumes"
python -m monai.bundle run training --config_file $pretraining "${encoder_size[@]}" \
  --dataset_dir $out/unlabelled --ckpt_dir $out/encoder --output_dir $out/pretraining \
  --num_folds 12 --epochs 30 --val_interval 10 --batch_size 16 --learning_rate 0.002 \
  --decoder_hidden_size 48 --decoder_mlp_dim 96 --decoder_num_layers 2 --decoder_num_heads 4

step "3/6 training brats_lora32 on that encoder"
python -m monai.bundle run training --config_file $configs/train.json \
  "${data[@]}" "${small[@]}" --output_dir $out/eval --pretrained $encoder \
  --epochs 24 --val_interval 4 --batch_size 2

step "4/6 evaluating its best model on the validation cases"
python -m monai.bundle run evaluating --config_file "['$configs/train.json','$configs/evaluate.json']" \
  "${data[@]}" --num_workers 0 --output_dir $out/eval

step "5/6 inference on the unlabelled cases"
python -m monai.bundle run --config_file $configs/inference.json \
  "${data[@]}" --num_workers 0 --output_dir $out/segmentations

step "6/6 pictures"
cp "$(ls $out/eval/figures/*.png | head -n 1)" $out/prediction.png
cp "$(ls $out/pretraining/figures/*.png | head -n 1)" $out/reconstruction.png
python - <<'PYTHON'
import json

summary = json.load(open("demo/eval/metrics.json"))["summary"]
regions = " ".join(f"{name} {row['dice']:.3f}" for name, row in summary["regions"].items())
print(f"pooled_dice {summary['pooled_dice']:.3f}, mean_dice {summary['mean_dice']:.3f} ({regions})")
print("image, ground truth and prediction in three planes: demo/prediction.png")
print("input, visible and reconstructed patches of the pre-training: demo/reconstruction.png")
print("curves and images: tensorboard --logdir demo")
PYTHON
