#!/usr/bin/env bash
# Make the environment in .venv (or $LORA_EXT_VENV), once; print nothing when it is there.
# Usage: source ci/environment.sh [run|test]     "run" leaves the test tools out.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
kind="${1:-run}"
venv="${LORA_EXT_VENV:-$root/.venv}"
files=("$root/requirements.txt")
[ "$kind" = test ] && files+=("$root/ci/requirements.txt")
stamp="$venv/.made-$kind"
wanted="$(cat "${files[@]}" "$root/pyproject.toml" | cksum) $root"

if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
  echo "making the environment in $venv (once, a few minutes)"
  [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
  # torch on its own first: any build of the pinned version will do, and the rest must not bring another
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$(grep '^torch==' "$root/requirements.txt")"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $(printf -- '-r %s ' "${files[@]}")
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable "$root"
  echo "$wanted" > "$stamp"
fi
export PATH="$venv/bin:$PATH"
