#!/usr/bin/env bash
# MONAI Label's real server with our bundles and no network: listed, asked over REST to segment a
# phantom and a real patient, and to train a round on submitted labels. docs/monai-label.md is the
# how-to of the same commands.
#
# Usage: bash ci/label_check.sh [WORK]     everything lands in WORK (default label_check/)
# The environment, several GB, is made once in .venv-label or $LORA_EXT_LABEL_VENV. Real patients
# are looked for as in the tests ($LORA_EXT_REAL_DATA); without them that check is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/labelling/environment.sh

work="${1:-label_check}"
configs=bundles/brats_lora32/configs
app=$work/app/monaibundle
step() { printf '\n== %s\n' "$*"; }

rm -rf "$work"
mkdir -p "$work"
step "1/4 phantoms: 6 to train a first model on, 16 for the datastore"
python -m lora_ext phantom --task brats --out "$work/first" --cases 6 --seed 1 --size 48,48,32
python -m lora_ext phantom --task brats --out "$work/clinic" --cases 16 --seed 2 --size 48,48,32 \
  --test_cases 0
python ci/label_check.py datastore "$work/clinic" "$work/studies" "$work/held_out"

step "2/4 a first model of two channels, with few cases and small"
python -m monai.bundle run training --config_file $configs/train.json \
  --dataset_dir "$work/first" --ckpt_dir "$work/models" --output_dir "$work/eval" \
  --modalities "['FLAIR','t1gd']" --pretrained none --num_folds 3 --epochs 40 --val_interval 10 \
  --roi_size "[48,48,32]" --feature_size 8 --hidden_size 48 --mlp_dim 96 --num_layers 4 \
  --num_heads 4 --crops_per_case 1 --num_workers 0 --cache_rate 1.0 --sw_overlap 0.25

step "3/4 the app, with the bundle packaged so that it needs no flags, and all others untrained"
python -m lora_ext package --bundle brats_lora32 --models "$work/models" --out "$work/packages" \
  --modalities "['FLAIR','t1gd']" \
  --crops_per_case 1 --num_workers 0 --cache_rate 1.0 --sw_overlap 0.25 --val_interval 4
monailabel apps --download --name monaibundle --output "$work/app"
python -m zipfile -e "$work"/packages/brats_lora32_v*.zip "$app/model"
python ci/label_check.py untrained "$app/model"
python -m monai.bundle run --config_file "$app/model/brats_lora32/configs/inference.json" \
  --dataset_dir "$work/held_out" --output_dir "$work/own_inference"

step "4/4 the server"
alone=(unshare --net --map-root-user)
if ! "${alone[@]}" true 2> /dev/null; then
  echo "this system does not let us take the network away: the server keeps it"
  alone=()
fi
${alone[@]+"${alone[@]}"} bash ci/labelling/serve_and_ask.sh "$work"
