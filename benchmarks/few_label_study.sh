#!/usr/bin/env bash
# Which regime for how many labelled cases: four regimes x two phantom tasks x 2, 4, 8 and 16 cases,
# the same number of training steps (320) whatever the cases, the same 16 cases validated.
#
# Usage: bash benchmarks/few_label_study.sh OUT [--flags of the study verb]
# Takes about an hour and a half of one core. Run again, it resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
out="$1"
shift
regimes="baseline finetune frozen lora32"
bundles="$(for task in brats prostatex; do for r in $regimes; do printf '%s_%s,' $task "$r"; done; done)"

for cases in 2 4 8 16; do
  epochs=$((320 / cases))
  bash benchmarks/miniature_study.sh "$out" study --out "$out/cases_$cases" --bundles "${bundles%,}" \
    --training_cases $cases --epochs $epochs --val_interval $epochs "$@"
done
