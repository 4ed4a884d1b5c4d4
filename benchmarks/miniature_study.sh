#!/usr/bin/env bash
# The paper's comparison in miniature, on phantoms: an encoder pre-trained on unlabelled
# single-channel volumes, then six regimes x two tasks with 8 labelled cases, then the ablation of
# the adapters. Everything lands in OUT; run again, it resumes.
#
# Usage: bash benchmarks/miniature_study.sh OUT [study|ablation] [--flags of that verb]
# SIZE=small (default) takes two cores about an hour and a half per verb; SIZE=paper is for a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/environment.sh run

out="$1" verb="${2:-study}"
shift $(($# < 2 ? $# : 2))

if [ "${SIZE:-small}" = small ]; then
  voxels="64,64,32" brats=80 prostatex=160 pretraining_epochs=60 batch=16 epochs=40
  encoder_size=(--roi_size "[64,64,32]" --hidden_size 192 --mlp_dim 768 --num_layers 6 --num_heads 6)
  decoder_size=(--decoder_hidden_size 96 --decoder_mlp_dim 384 --decoder_num_layers 2
                --decoder_num_heads 4 --learning_rate 0.0015)
  network_size=("${encoder_size[@]}" --feature_size 8 --num_workers 0)
else
  voxels="128,128,48" brats=200 prostatex=400 pretraining_epochs=100 batch=32 epochs=60
  encoder_size=() decoder_size=() network_size=()
fi

python -m lora_ext phantom --task brats --out "$out/unlabelled/phantom_brats" \
  --cases $brats --seed 1000 --size $voxels --test_cases 0
python -m lora_ext phantom --task prostatex --out "$out/unlabelled/phantom_prostatex" \
  --cases $prostatex --seed 1000 --size $voxels --test_cases 0
for task in brats prostatex; do
  python -m lora_ext phantom --task $task --out "$out/phantoms/phantom_$task" \
    --cases 32 --seed 0 --size $voxels --test_cases 0
done

if [ ! -f "$out/encoder/finished" ]; then
  python -m monai.bundle run training --config_file bundles/mae_pretrain/configs/train.json \
    --dataset_dir "$out/unlabelled" --ckpt_dir "$out/encoder" --output_dir "$out/pretraining" \
    --spacing "[0,0,0]" ${encoder_size[@]+"${encoder_size[@]}"} ${decoder_size[@]+"${decoder_size[@]}"} \
    --num_folds 20 --epochs $pretraining_epochs --val_interval 10 --batch_size $batch \
    --crops_per_case 1 --cache_rate 1.0 --num_workers 0 --resume True
  touch "$out/encoder/finished"
fi

# 32 cases in two folds: 16 to validate on, and 8 of the other 16 to train on
python -m lora_ext "$verb" --data_dir "$out/phantoms" --out "$out/$verb" \
  --pretrained "$out/encoder/encoder.safetensors" --encoder_learning_rate 0.0002 \
  --num_folds 2 --training_cases 8 --epochs $epochs --val_interval $epochs --batch_size 1 \
  --crops_per_case 1 --cache_rate 1.0 ${network_size[@]+"${network_size[@]}"} "$@"
