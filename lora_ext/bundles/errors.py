"""One sentence for the user in place of MONAI's nested tracebacks.

MONAI wraps whatever an expression of a config raises into a ``RuntimeError`` that shows the
expression, so a clear sentence about a broken file ends up in the middle of some eighty lines.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

FULL = "LORA_EXT_TRACEBACK"  # set it to see tracebacks all the same
GRACE = 10.0  # seconds; torchrun ends all processes much sooner than that once one is gone


def plain_errors() -> None:
    """From now on, end the process with one sentence for errors that are about its input.

    Only errors that end the process are affected, and only those that ``lora_ext`` raised on
    purpose (``ValueError``, ``FloatingPointError``); code that catches exceptions sees what MONAI
    raises. The environment variable ``LORA_EXT_TRACEBACK=1`` brings the traceback back. Of the
    processes of one torchrun that fail together, one is heard.
    """
    if os.environ.get(FULL) != "1":
        sys.excepthook = _print_error


def _print_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    cause = user_error(error)
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")  # set by torchrun
    if report and (cause is None or os.environ["RANK"] != "0") and isinstance(error, Exception):
        time.sleep(GRACE)  # if another process has a sentence to say, this one ends here
    if cause is None:
        sys.__excepthook__(kind, error, traceback)
        return
    text = f"error: {cause}\n({FULL}=1 shows where it was raised)"
    if report:
        _end_at_once(text, Path(report))
    print(text, file=sys.stderr)


def _end_at_once(text: str, report: Path) -> None:
    """Hand torchrun the sentence for its own report, and do not wait for the other processes."""
    message = {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}
    report.write_text(json.dumps({"message": message}), encoding="utf-8")
    print(text, file=sys.__stderr__, flush=True)  # torch holds back what goes to sys.stderr
    sys.stdout.flush()
    os._exit(1)


def user_error(error: BaseException) -> BaseException | None:
    """Find the error about the input that lies at the bottom of a chain of exceptions.

    Args:
        error: the outermost exception.

    Returns:
        The ``ValueError`` or ``FloatingPointError`` that ``lora_ext`` raised; ``None`` if none did.
    """
    for link in _chain(error):
        if isinstance(link, (ValueError, FloatingPointError)) and _raised_here(link):
            return link
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _raised_here(error: BaseException) -> bool:
    """Whether the frame that raised `error` is code of this package."""
    module = ""
    traceback = error.__traceback__
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next
    return module.partition(".")[0] == "lora_ext"
