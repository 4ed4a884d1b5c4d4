"""Files of weights by their address: the Hugging Face hub, and the web with a checksum.

Either library keeps what it downloaded, so a file is asked for once: huggingface_hub below
``HF_HOME`` (its settings ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_TOKEN`` hold as everywhere), and
torch.hub below ``TORCH_HOME``. Of the processes of a machine one downloads and the others wait.
"""

from __future__ import annotations

import os
import re
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.parse import urlsplit

import torch

from lora_ext.files import make_folder

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # one letter is a drive of Windows
HUB = re.compile(r"hf://([^/@\s]+/[^/@\s]+)/([^@\s]*[^@\s/])(?:@([^@\s]+))?")
# MONAI makes a # of a config's texts ::
WEB = re.compile(r"(https?://[^/\s]+/[^\s#]*?[^\s#/:])(?:#|::)sha256=([0-9A-Fa-f]{64})")
FORMS = "hf://owner/name/path/to/file[@revision] or https://address#sha256=CHECKSUM"


def is_remote(address: str | os.PathLike[str]) -> bool:
    """Whether this is an address, and no path."""
    return isinstance(address, str) and SCHEME.match(address) is not None


def local_file(address: str | os.PathLike[str]) -> str:
    """Bring a file of weights onto this machine, unless it is there.

    Args:
        address: ``hf://owner/name/path/to/file[@revision]``, ``https://address#sha256=CHECKSUM``,
            or a path.

    Returns:
        The file's path; a path as it was given.

    Raises:
        ValueError: one sentence for a file that is not there, needs a licence or a token, has
            another checksum, or cannot be reached.
    """
    if not is_remote(address):
        return os.fspath(address)
    text = str(address)
    if text.startswith("hf://"):
        return _from_hub(text)
    if text.startswith(("https://", "http://")):
        return _from_web(text)
    raise ValueError(f"{text}: found an address of another kind; expected {FORMS}, or a file")


def _from_hub(address: str) -> str:
    match = HUB.fullmatch(address)
    if match is None:
        raise ValueError(
            f"{address}: expected hf://owner/name/path/to/file, with @revision after it for another"
            " one than main"
        )
    import huggingface_hub  # it takes a second

    repo, file, revision = match.groups()
    try:
        return huggingface_hub.hf_hub_download(repo, file, revision=revision)
    except (OSError, ValueError) as error:  # the hub's own are among these
        raise ValueError(f"{address}: {_hub_reason(error, repo, file, revision)}") from error


def _hub_reason(error: Exception, repo: str, file: str, revision: str | None) -> str:
    """Why the hub did not hand a file out, and how to go on."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"found a repository whose licence has to be accepted first; do so at {page}, and set "
            "HF_TOKEN or run hf auth login"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"no repository {repo} is at {constants.ENDPOINT}, or a private one; check its name, "
            "or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}; see its branches and tags at {page}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        if constants.HF_HUB_OFFLINE:
            return (
                f"expected it in the cache {constants.HF_HUB_CACHE}, since HF_HUB_OFFLINE is set; "
                "unset that, or download the file elsewhere and give its path"
            )
        return (
            f"{constants.ENDPOINT} cannot be reached and the cache {constants.HF_HUB_CACHE} has no "
            "copy; check the network, or download the file elsewhere and give its path"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"{repo} has no file {file!r}; see its files at {page}/tree/{revision or 'main'}"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"could not be downloaded ({reason}); try again, or give the path of a file"


def _from_web(address: str) -> str:
    match = WEB.fullmatch(address)
    if match is None:
        raise ValueError(
            f"{address.replace('::', '#')}: expected an address that ends with #sha256= and the 64 "
            "hexadecimal digits of the file's checksum, so that nothing else is loaded; its "
            "publisher says it, or sha256sum FILE of a copy that you trust"
        )
    from huggingface_hub.utils import WeakFileLock

    url, digest = match[1], match[2].lower()
    folder = Path(torch.hub.get_dir(), "checkpoints", digest)
    target = folder / PurePosixPath(urlsplit(url).path).name
    make_folder(folder)
    with WeakFileLock(folder / ".lock"):
        if not target.is_file():
            _download(url, target, digest)
    return str(target)


def _download(url: str, target: Path, digest: str) -> None:
    try:
        torch.hub.download_url_to_file(url, str(target), hash_prefix=digest)
    except RuntimeError as error:  # torch's word for another checksum
        raise ValueError(
            f"{url}: found a file with another checksum than sha256={digest}; nothing was kept: "
            "compare the checksum with the publisher's, or try again"
        ) from error
    except HTTPError as error:
        error.close()
        raise ValueError(
            f"{url}: expected a file, got HTTP {error.code} ({error.reason}); check the address"
        ) from error
    except (OSError, HTTPException) as error:
        raise ValueError(
            f"{url}: could not be downloaded ({error}); check the network, or give the path of a "
            "file"
        ) from error
