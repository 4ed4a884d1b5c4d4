"""What starts a bundle's run: where the bundle lies, its seed, and one sentence for an error.

MONAI wraps whatever an expression of a config raises into a ``RuntimeError`` that shows the
expression, so a clear sentence about a broken file ends up in the middle of some eighty lines.
`start` ends the process with that sentence alone.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

FULL = "LORA_EXT_TRACEBACK"  # set it to see tracebacks all the same
PACKAGE = Path(__file__).resolve().parents[1]
PACKAGED_IN = PACKAGE.parent  # the bundle, where the package came in its zip


def start(
    device: object,
    seed: int | None = None,
    *,
    tracking: object = True,
    output_dir: str | os.PathLike[str] = ".",
    output_ext: str | None = None,
    model: str | os.PathLike[str] | None = None,
    distributed: bool = False,
    ckpt_dir: str | os.PathLike[str] | None = None,
    resume: bool | None = None,
    overwrite: bool = False,
    first_handler: str = "",
) -> None:
    """Start a run of a bundle: the one call of its ``initialize``.

    What can be checked without reading data is checked here. Nothing else of the run happens here:
    its handlers load the weights (`lora_ext.training.StartTraining`, `LoadModel`).

    Args:
        device: where the network runs.
        seed: seed of the run's random numbers; None leaves them alone.
        tracking: the config's ``save_execute_config``, see `lora_ext.training.check_tracking`.
        output_dir: the run's folder.
        output_ext: the format of the segmentations that will be written, if any.
        model: the ``model.pt`` that will be loaded, if any.
        distributed: whether torchrun started several processes.
        ckpt_dir: folder of the models, where the run trains one.
        resume: whether to go on with an interrupted run; None where that is not possible.
        overwrite: whether files that are there may be replaced.
        first_handler: see `lora_ext.training.folders.prepare_folders`.

    Raises:
        ValueError: for a setting that cannot work, see above.
    """
    plain_errors()
    from monai.utils import set_determinism

    from lora_ext.images.image_file import check_output_ending
    from lora_ext.training import check_tracking, processes
    from lora_ext.training.folders import prepare_folders
    from lora_ext.training.stopping import end_by_signals

    end_by_signals(resume)

    if output_ext is not None:
        check_output_ending(output_ext)
    check_tracking(tracking, output_dir)
    if model is not None and not Path(model).is_file():
        raise ValueError(f"{model}: no trained model there; run 'training' first, or set ckpt_dir")
    if distributed:
        processes.join(device)  # type: ignore[arg-type]
    prepare_folders(
        output_dir, ckpt_dir, resume=bool(resume), overwrite=overwrite, first_handler=first_handler
    )
    if seed is not None:
        set_determinism(seed=processes.own_seed(seed))


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
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and PACKAGE in Path(frames[-1].filename).resolve().parents


def bundle_root(name: str) -> str:
    """Find the folder of the bundle that is being run.

    MONAI resolves relative paths against the working folder and tells a config nothing of its own
    place. But a config is only ever evaluated by MONAI's ``ConfigWorkflow``, which knows the
    config files it was given, so the callers are asked first. Without a workflow (a config read
    by hand) the bundle is looked for in the working folder, and where the package itself lies.

    Args:
        name: the bundle's name.

    Returns:
        The bundle's absolute folder.

    Raises:
        ValueError: if the bundle is found nowhere; ``--bundle_root`` then has to be given.
    """
    running = _running_config_folder()
    here = Path.cwd()
    candidates = [here / "bundles" / name, here, PACKAGED_IN]
    if running is not None:
        candidates.insert(0, running.parent if running.name == "configs" else running)
    for folder in candidates:
        if (folder / "configs" / "metadata.json").is_file():
            return str(folder.resolve())
    tried = ", ".join(str(folder) for folder in candidates)
    raise ValueError(f"bundle {name!r} is in none of {tried}; give --bundle_root")


def _running_config_folder() -> Path | None:
    """The config folder of the MONAI workflow among the callers, if there is one.

    The package's only look at its callers' frames: MONAI has no other way to ask.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        # vars(), since a workflow's own attribute look-up may evaluate the config again
        folder = getattr(caller, "__dict__", {}).get("config_root_path")
        if isinstance(folder, Path):
            return folder.resolve()
        frame = frame.f_back
    return None
