"""What starts a bundle's run: where the bundle lies, its seed, and one sentence for an error.

MONAI wraps whatever an expression of a config raises into a ``RuntimeError`` that shows the
expression, so a clear sentence about a broken file ends up in the middle of some eighty lines.
`start` ends the process with that sentence alone.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from lora_ext.bundles.flags import check_flags, running_config
from lora_ext.weights.record import Folders, model_folders

FULL = "LORA_EXT_TRACEBACK"  # set it to see tracebacks all the same
PACKAGE = Path(__file__).resolve().parents[1]
PACKAGED_IN = PACKAGE.parent  # the bundle, where the package came in its zip
_WORKER = "\nOriginal Traceback (most recent call last):\n"
_WORKER_ERROR = re.compile(  # the innermost frame of a traceback, its code, and what was raised
    r'^  File "(.+)", line \d+, in .*\n(?:    .*\n)*(?:ValueError|FloatingPointError): (.*)$', re.M
)


def start(
    device: object,
    output_dir: str | os.PathLike[str],
    ckpt_dir: Folders,
    *,
    seed: int | None = None,
    tracking: object = True,
    trained: bool = False,
    segments: bool = False,
    distributed: bool = False,
    resume: bool | None = None,
    overwrite: bool = False,
) -> None:
    """Start a run of a bundle: the one call of its ``initialize``.

    What can be checked without reading data is checked here, the flags in `settle` before. Nothing
    else of the run happens here: its handlers load the weights (`lora_ext.training.StartTraining`,
    `LoadModel`). Cases and engines require the config's ``started``, which is this call, so that no
    run can do without it, whatever it was told to initialize.

    Args:
        device: where the network runs.
        output_dir: the run's folder.
        ckpt_dir: the folder of the models; for segmentations, those of an ensemble too.
        seed: seed of the run's random numbers; None leaves them alone.
        tracking: the config's ``save_execute_config``, see `lora_ext.training.check_tracking`.
        trained: whether the run uses the model in `ckpt_dir`, and trains none.
        segments: whether the run writes segmentations; their folder is prepared when the cases are
            known, since nothing is written among these (`lora_ext.images.pending_cases`).
        distributed: whether torchrun started several processes.
        resume: whether to go on with an interrupted run; None where that is not possible.
        overwrite: whether files that are there may be replaced.

    Raises:
        ValueError: for a setting that cannot work, see above.
    """
    from monai.utils import set_determinism

    from lora_ext.training import check_tracking, processes
    from lora_ext.training.folders import check_either, prepare_folders
    from lora_ext.training.stopping import end_by_signals

    end_by_signals(resume)
    check_tracking(tracking, output_dir)
    for model in (folder / "model.pt" for folder in model_folders(ckpt_dir) if trained):
        if not model.is_file():
            raise ValueError(
                f"{model}: no trained model there; run 'training' first, or set ckpt_dir"
            )
    if distributed:
        processes.join(device)  # type: ignore[arg-type]
    check_either(resume, overwrite)
    if not segments:
        prepare_folders(output_dir, None if trained else ckpt_dir)  # type: ignore[arg-type]
    if seed is not None:
        set_determinism(seed=processes.own_seed(seed))


def settle() -> None:
    """Check what the run was given, before anything is read: what ``started`` requires.

    Raises:
        ValueError: see `check_flags`.
    """
    plain_errors()
    check_flags()


def plain_errors() -> None:
    """From now on, end the process with one sentence for errors that are about its input.

    ``sys.excepthook`` is process-wide, and the only place where an error that MONAI raises can
    still be told to the user in one sentence. Only errors that end the process are affected, and
    only those that ``lora_ext`` raised on purpose (``ValueError``, ``FloatingPointError``); code
    that catches exceptions sees what MONAI raises. The environment variable
    ``LORA_EXT_TRACEBACK=1`` brings the traceback back.
    """
    if os.environ.get(FULL) != "1":
        sys.excepthook = _print_error


def _print_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    cause = user_error(error)
    text = f"error: {cause}\n({FULL}=1 shows where it was raised)"
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")  # set by torchrun
    if report and isinstance(error, Exception):
        if cause is None:
            text = "".join(traceback.format_exception(kind, error, trace))
        _tell_torchrun(text, Path(report), aloud=cause is not None and os.environ["RANK"] == "0")
    if cause is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(text, file=sys.stderr)


def _tell_torchrun(text: str, report: Path, aloud: bool) -> None:
    """Hand torchrun the text, of which it prints the first one, and end at once.

    Processes fail together: most errors are found by all, and those that wait for one that failed
    lose their connection. So only rank 0 speaks for itself, and only a sentence for the user.
    """
    message = {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}
    report.write_text(json.dumps({"message": message}), encoding="utf-8")
    if aloud:
        print(text, file=sys.__stderr__, flush=True)  # torch holds back what goes to sys.stderr
    sys.stdout.flush()
    os._exit(1)


def user_error(error: BaseException) -> BaseException | None:
    """Find the error about the input that lies at the bottom of a chain of exceptions.

    Args:
        error: the outermost exception.

    Returns:
        The ``ValueError`` or ``FloatingPointError`` that ``lora_ext`` raised; one of the same words
        where a data loader's worker process raised it; ``None`` if none did.
    """
    for link in _chain(error):
        if isinstance(link, (ValueError, FloatingPointError)) and _raised_here(link):
            return link
        if sentence := _raised_in_worker(link):
            return ValueError(sentence)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _raised_here(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and PACKAGE in Path(frames[-1].filename).resolve().parents


def _raised_in_worker(error: BaseException) -> str | None:
    """Find our sentence in the traceback that torch makes the message of a worker's error."""
    for file, sentence in _WORKER_ERROR.findall(str(error)) if _WORKER in str(error) else ():
        if PACKAGE in Path(file).resolve().parents:
            return str(sentence)
    return None


def bundle_root(name: str) -> str:
    """Find the folder of the bundle that is being run.

    MONAI resolves relative paths against the working folder and tells a config nothing of its own
    place. But MONAI's ``ConfigWorkflow`` and its export commands know the config files that they
    were given, so the callers are asked first. For a config that is read by hand the bundle is
    looked for in the working folder, and where the package itself lies.

    Args:
        name: the bundle's name.

    Returns:
        The bundle's absolute folder.

    Raises:
        ValueError: if the bundle is found nowhere; ``--bundle_root`` then has to be given.
    """
    running, here = running_config(), Path.cwd()
    candidates = [here / "bundles" / name, here, PACKAGED_IN]
    if running is not None:
        candidates.insert(0, running.parent if running.name == "configs" else running)
    for folder in candidates:
        if (folder / "configs" / "metadata.json").is_file():
            return str(folder.resolve())
    tried = ", ".join(str(folder) for folder in candidates)
    raise ValueError(f"bundle {name!r} is in none of {tried}; give --bundle_root")
