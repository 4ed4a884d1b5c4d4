"""Reading files of weights without running anything that is in them.

Every file goes through `read_content` (whole models, encoders, adapters, ``last.ckpt``) and what is
taken from it through `check_weights`, so that a broken file ends with one sentence. Which format it
has is seen from its first bytes, whatever its name.
"""

from __future__ import annotations

import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lora_ext.networks.config import KEY, with_record
from lora_ext.networks.loading import check_weight, form

# a teacher before its student: it is what self-distillation keeps
WRAPPERS = (
    "state_dict", "model", "model_state_dict", "network", "network_weights", "module", "encoder",
    "teacher", "student",
)  # fmt: skip
EXPECTED = "expected a .safetensors file or a torch file of tensors"
HEAD = 64  # bytes that tell the formats apart


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a flat dictionary of tensors from ``.safetensors`` or a torch file, on the CPU.

    Outer dictionaries such as ``state_dict`` or ``model`` are opened; entries that are not tensors
    (epoch, optimizer) are dropped. The values are not looked at: see `check_weights`.

    Args:
        path: the file; ``~`` is the home folder.

    Returns:
        The tensors by name, with the network's record as `with_record` adds it, if there is one.

    Raises:
        ValueError: if the file is missing, cannot be read safely, or holds no tensors.
    """
    state = _state_dict(read_content(path))
    if not state:
        raise ValueError(
            f"{path}: holds no tensors, nor a dictionary of them under one of "
            f"{', '.join(WRAPPERS)}; expected the state dict of a network: save that"
        )
    tensors = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    _check_stores(tensors, path)
    made = record_inside(state)
    if made is None:
        return tensors
    try:
        text = json.dumps(made)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(_no_object(f"{path}, the record in it", type(made).__name__)) from error
    return with_record(tensors, json_object(text, f"{path}, the record in it"))


def record_inside(state: Mapping[Any, Any]) -> Any:
    """Find the record that `with_record` added to a state dict; ``None`` where there is none."""
    about = getattr(state, "_metadata", None)
    about = about.get("") if isinstance(about, dict) else None
    return about.get(KEY) if isinstance(about, dict) else None


def read_content(path: str | os.PathLike[str]) -> Any:
    """Read whatever a ``.safetensors`` or torch file holds, on the CPU and with ``weights_only``.

    Args:
        path: the file; ``~`` is the home folder.

    Returns:
        Tensors, numbers and text, in dictionaries and lists.

    Raises:
        ValueError: if the file is missing, empty, damaged or of another kind, or if it holds
            objects whose loading would run code.
    """
    file, head = _opened(path)
    try:
        return _loaded(file, head)
    except Exception as error:  # what a damaged pickle can raise is any
        raise ValueError(_why_not(path, head, error)) from error


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the text that a ``.safetensors`` file says of itself; none in other files.

    Args:
        path: the file; ``~`` is the home folder.

    Raises:
        ValueError: if it cannot be read.
    """
    file, head = _opened(path)
    if not _is_safetensors(head):
        return {}
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            return content.metadata() or {}
    except Exception as error:  # as in `read_content`
        raise ValueError(_why_not(path, head, error)) from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a record of a network, such as ``network.json``.

    Args:
        path: the file.

    Raises:
        ValueError: unless it is a JSON object.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: found a file that cannot be read ({type(error).__name__}); expected the JSON "
            "that training writes beside model.pt: copy it again, or remove it"
        ) from error
    return json_object(text, path)


def json_object(text: str, source: object) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        text: the JSON.
        source: where it was found, for messages.

    Raises:
        ValueError: unless it is one.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(_no_object(source, text[:40])) from error
    if not isinstance(content, dict):
        raise ValueError(_no_object(source, content))
    return content


def check_weights(
    tensors: Mapping[str, Any], targets: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> None:
    """Refuse tensors that a network must not be filled with; names may be missing on either side.

    Args:
        tensors: what was read.
        targets: the network's tensors by the same names.
        path: the file, for messages.

    Raises:
        ValueError: for the first that has another shape, or is no weight (see `check_weight`).
    """
    for key, target in targets.items():
        found = tensors.get(key, target)
        shape = getattr(found, "shape", None)
        if shape is not None and shape != target.shape:
            raise ValueError(
                f"{path}: {key!r} has shape {list(shape)}; the network needs {list(target.shape)}"
            )
        check_weight(key, found, target, path)


def _opened(path: str | os.PathLike[str]) -> tuple[Path, bytes]:
    """The file and its first bytes."""
    if not os.fspath(path):
        raise ValueError(
            "file of weights: found an empty path; expected a file, so name one or leave the "
            "setting out"
        )
    file = Path(path).expanduser()
    if file.is_dir():
        raise ValueError(f"{path}: found a folder; {EXPECTED}, so give the file in it")
    if not file.is_file():
        raise ValueError(f"{path}: no such weights file; {EXPECTED}, so check the path")
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD)
    except OSError as error:
        raise ValueError(f"{path}: cannot be opened ({error.strerror}); {EXPECTED}") from error
    if not head:
        raise ValueError(f"{path}: found an empty file; {EXPECTED}: copy or download it again")
    return file, head


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{"  # after the header's length


def _loaded(path: Path, head: bytes) -> Any:
    if _is_safetensors(head):
        return safetensors.torch.load_file(path)
    if head.startswith(b"PK"):  # torch does not look at the checksums
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(damaged)
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is refused afterwards
        return torch.load(stream, map_location="cpu", weights_only=True)


def _why_not(path: str | os.PathLike[str], head: bytes, error: Exception) -> str:
    """Why a file was not read, without torch's advice to read it all the same."""
    code = re.search(r"GLOBAL ([\w.]+)", str(error))
    if code or "TorchScript" in str(error):
        what = code[1] if code else "a TorchScript program"
        return (
            f"{path}: found {what} in it, whose loading can run code, so nothing was loaded; "
            "expected tensors alone: where the file comes from, save the state dict "
            "(torch.save(network.state_dict(), FILE))"
        )
    found = "a damaged file, one that was cut short, or one of another kind"
    if head.isascii() and all(c >= 32 or c in b"\t\n\r" for c in head):
        found = f"text that begins with {head[:40].decode()!r}"
    return f"{path}: found {found}; {EXPECTED}: copy or download it again"


def _state_dict(content: Any) -> Mapping[Any, Any]:
    """The dictionary that holds tensors, out of the wrappers around it."""
    found = {}
    for _ in range(len(WRAPPERS)):  # a pickle may hold itself
        if not isinstance(content, dict):
            break
        if any(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
            found = content
        content = next((content[w] for w in WRAPPERS if isinstance(content.get(w), dict)), None)
    return found


def _check_stores(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Refuse tensors that are not plain, or that strides of zero blow up from a few bytes."""
    size = Path(path).expanduser().stat().st_size
    for key, tensor in tensors.items():
        found = form(tensor)
        if found is None and tensor.nbytes > size:
            found = f"{tensor.nbytes} bytes in a file of {size}"
        if found is not None:
            raise ValueError(
                f"{path}: found {key!r} as {found}; expected plain tensors with all their values: "
                "save the state dict of the trained network again"
            )


def _no_object(source: object, found: Any) -> str:
    shown = repr(found)[:60]
    return (
        f"{source}: found {shown}; expected a JSON object with the settings of the network: copy "
        "it again from where the model was trained"
    )
