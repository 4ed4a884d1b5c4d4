#!/usr/bin/env bash
# Mend what can be mended: lint, format, bundles from their source.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/environment.sh test
ruff check --fix .
ruff format .
python -m lora_ext bundles --write
