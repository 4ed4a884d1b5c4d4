"""The walkthrough, run as its reader would run it."""

import json
import shutil
import subprocess
import sys

import jupytext
import nbformat
import pytest

from lora_ext.bundles.generator import write_bundles


def test_walkthrough_is_a_notebook_of_text_python_and_shell(root):
    cells = jupytext.read(root / "docs/walkthrough.md").cells
    kinds = {"bash" if c.source.startswith("%%bash") else c.cell_type for c in cells}
    assert kinds == {"markdown", "code", "bash"}


@pytest.mark.slow
def test_walkthrough_runs_from_start_to_end(root, tmp_path):
    write_bundles(tmp_path / "bundles")
    shutil.copytree(root / "docs", tmp_path / "docs")
    run = subprocess.run(
        [sys.executable, str(root / "ci/walkthrough.py")],
        cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=900,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    check_outputs(nbformat.read(tmp_path / "walkthrough/walkthrough.ipynb", as_version=4))
    summary = json.loads((tmp_path / "walkthrough/eval/metrics.json").read_text(encoding="utf-8"))[
        "summary"
    ]
    assert summary["pooled_dice"] > 0.5


def check_outputs(notebook):
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not [output for output in shown if output.output_type == "error"]
    text = "".join(output.get("text", "") for output in shown)
    assert "error:" not in text
    assert "Traceback" not in text
