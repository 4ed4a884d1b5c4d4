"""Run docs/walkthrough.md as a notebook and write it with its outputs.

Usage: python ci/walkthrough.py [--folder walkthrough]     from the repository's root
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import fire
import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

SOURCE = Path("docs/walkthrough.md")


def main(folder: str = "walkthrough") -> None:
    """Run every cell; what was reached is written also when one fails.

    Args:
        folder: the folder that the walkthrough writes to; emptied before.
    """
    out = Path(folder)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    notebook = jupytext.read(SOURCE)
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": "."}})
    try:
        client.execute()
    except CellExecutionError as error:
        sys.exit(f"{SOURCE}: {error}")
    finally:
        nbformat.write(notebook, out / "walkthrough.ipynb")
    print(f"{out / 'walkthrough.ipynb'}: {len(notebook.cells)} cells, all run")


if __name__ == "__main__":
    fire.Fire(main)
