#!/usr/bin/env bash
# Run docs/walkthrough.md as a notebook; its files and walkthrough.ipynb land in walkthrough/.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/environment.sh test
python ci/walkthrough.py
echo "read it with: jupyter lab walkthrough/walkthrough.ipynb"
