"""One sentence for the user in place of MONAI's nested tracebacks.

MONAI wraps whatever an expression of a config raises into a ``RuntimeError`` that shows the
expression, so a clear sentence about a broken file ends up in the middle of some eighty lines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import TracebackType

FULL = "LORA_EXT_TRACEBACK"  # set it to see tracebacks all the same


def plain_errors() -> None:
    """From now on, end the process with one sentence for errors that are about its input.

    Only errors that end the process are affected, and only those that ``lora_ext`` raised on
    purpose (``ValueError``, ``FloatingPointError``); code that catches exceptions sees what MONAI
    raises. The environment variable ``LORA_EXT_TRACEBACK=1`` brings the traceback back.
    """
    if os.environ.get(FULL) != "1":
        sys.excepthook = _print_error


def _print_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    cause = user_error(error)
    if cause is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        print(f"error: {cause}\n({FULL}=1 shows where it was raised)", file=sys.stderr)


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
