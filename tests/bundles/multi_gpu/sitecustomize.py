"""Python imports this at its start: notes what a process writes below a folder, one line each.

Such as ``open models/network.json``; ``WRITES_BELOW`` names the folder, and ``writes/<rank>.txt``
in it is where the notes go. What C++ opens by itself is not seen, but all of the project's files
are renamed into place, and that is.
"""

import os
import sys
from pathlib import Path

folder = os.environ.get("WRITES_BELOW")


def to_write(event, details):
    if event == "open":
        _, mode, flags = details
        return bool(set(mode or "") & set("wax+")) or bool((flags or 0) & os.O_ACCMODE)
    return event in ("os.rename", "os.mkdir", "os.remove")


def note_writes(folder):
    notes = Path(folder) / "writes"
    notes.mkdir(exist_ok=True)
    rank = os.environ.get("RANK", "0")
    log = (notes / f"{rank}.txt").open("a", buffering=1)

    def note(event, details):
        if event in ("open", "os.rename", "os.mkdir", "os.remove") and to_write(event, details):
            path = str(details[1] if event == "os.rename" else details[0])
            if path.startswith(folder) and not path.endswith(f"rank{rank}.pt"):  # the probe's
                log.write(f"{event} {os.path.relpath(path, folder)}\n")

    sys.addaudithook(note)


if folder and ("RANK" in os.environ or os.environ.get("ALONE")):  # not in torchrun itself
    note_writes(folder)
