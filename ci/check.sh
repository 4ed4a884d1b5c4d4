#!/usr/bin/env bash
# Everything that needs no test run: lint, format, types, bundles against their source.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/environment.sh test
ruff check .
ruff format --check .
mypy
python -m lora_ext bundles --check
