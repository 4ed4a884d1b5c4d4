#!/usr/bin/env bash
# Make MONAI Label's environment in .venv-label (or $LORA_EXT_LABEL_VENV), once. Source it.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
venv="${LORA_EXT_LABEL_VENV:-$root/.venv-label}"
pins="$root/ci/label_requirements.txt"
stamp="$venv/.made"
wanted="$(cat "$pins" "$root/pyproject.toml" | cksum) $root"

if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
  echo "making MONAI Label's environment in $venv (once, several GB)"
  [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
  install=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
  "${install[@]}" --upgrade pip
  # before the rest: sam2, which MONAI Label asks for, is built against the torch that is there
  "${install[@]}" $(grep -E '^(torch|torchvision|numpy|setuptools|wheel)==' "$pins")
  # no CUDA code is compiled for sam2, since nothing here uses it
  SAM2_BUILD_CUDA=0 "${install[@]}" --no-build-isolation -r "$pins"
  # lora_ext's own pins want numpy 2, which MONAI Label cannot have
  "${install[@]}" --no-deps --no-build-isolation --editable "$root"
  echo "$wanted" > "$stamp"
fi
export PATH="$venv/bin:$PATH"
