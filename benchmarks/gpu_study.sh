#!/usr/bin/env bash
# The miniature study at the paper's size (ViT-Base, roi 128x128x48, feature size 64), for one GPU.
# It was written without a GPU at hand and has not been run. Run again, it resumes.
#
# Usage: bash benchmarks/gpu_study.sh [OUT] [study|ablation] [--flags of that verb, such as --seeds 0,1,2]
set -euo pipefail
out="${1:-gpu_study}" verb="${2:-study}"
shift $(($# < 2 ? $# : 2))
SIZE=paper bash "$(dirname "$0")/miniature_study.sh" "$out" "$verb" "$@"
