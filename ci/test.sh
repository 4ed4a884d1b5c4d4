#!/usr/bin/env bash
# Make the environment, run all checks and tests. Arguments go to pytest, e.g. --slow or -k encoder.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/environment.sh test
bash ci/check.sh
python -m pytest "$@"
