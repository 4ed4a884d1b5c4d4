"""Medical Segmentation Decathlon tasks from the network: resumed, checked, whole or not at all.

What has come of an archive lies in ``<archive>.part``, and the version of the server's file that it
belongs to in ``<archive>.part.version``, so that two versions are never glued together.
"""

from __future__ import annotations

import http.client
import logging
import re
import shlex
import shutil
import ssl
import tarfile
import time
from collections.abc import Callable, Sequence
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from monai.apps.datasets import DecathlonDataset
from monai.apps.utils import check_hash, safe_extract_member
from tqdm import tqdm

from lora_ext.data.task import read_task
from lora_ext.files import whole_file

logger = logging.getLogger(__name__)

TASKS = {"brats": "Task01_BrainTumour", "prostatex": "Task05_Prostate"}
TIMEOUT = 30.0  # seconds without a byte
WAITS = (1.0, 2.0, 5.0, 10.0, 20.0)  # seconds before each new try
TRY_AGAIN = (408, 429, 500, 502, 503, 504)  # HTTP states that pass
DROPPED = (URLError, ConnectionError, TimeoutError, http.client.HTTPException, ssl.SSLError)
CHUNK = 1 << 16  # bytes read at a time
LIMIT = 16 << 30  # bytes; the largest of the archives has 7.1 GiB
HIDDEN = ("._", "__MACOSX")  # what macOS adds to an archive


def download_task(
    task: str,
    data_dir: str | Path,
    *,
    url: str | None = None,
    keep_archive: bool = False,
    waits: Sequence[float] = WAITS,
) -> Path:
    """Download and extract a task of the Medical Segmentation Decathlon (Antonelli et al. 2022).

    Addresses and checksums are those of `monai.apps.DecathlonDataset`. A task that is there and
    complete is left as it is, without a request. A broken download continues where it stopped; an
    archive that lies in `data_dir` already is checked and used.

    Args:
        task: brats (Task01_BrainTumour) or prostatex (Task05_Prostate).
        data_dir: folder to write the task's folder to; about twice the archive's size is needed.
        url: address of the archive in place of MONAI's; the checksum is MONAI's all the same.
        keep_archive: keep the archive after the extraction.
        waits: seconds to wait before each new try after a dropped connection.

    Returns:
        The task's folder, absolute.

    Raises:
        ValueError: an unknown task or address, a checksum that differs, an unsafe archive, a disk
            too small, or a folder of the task's name that is no complete task.
        ConnectionError: the connection dropped more often than `waits` allows.
    """
    if task not in TASKS:
        raise ValueError(f"task: expected one of {', '.join(TASKS)}, got {task!r}")
    folder = Path(data_dir).expanduser().absolute() / TASKS[task]
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        return _complete(folder)
    address = DecathlonDataset.resource[folder.name] if url is None else url
    if not re.fullmatch(r"https?://[^\s/]\S*", str(address)):
        raise ValueError(f"url: expected an http:// or https:// address, got {address!r}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    archive, md5 = folder.with_name(f"{folder.name}.tar"), DecathlonDataset.md5[folder.name]
    if archive.is_file():
        check_md5(archive, md5, str(archive))
    else:
        fetch(address, archive, md5, waits=waits)
    extract_folder(archive, folder, check=read_task)
    if not keep_archive:
        archive.unlink()
    return folder


def next_command(task: str, folder: Path) -> str:
    """Return the command that trains on a downloaded task, from the repository root.

    Args:
        task: brats or prostatex.
        folder: the task's folder.

    Returns:
        A shell command line.
    """
    config = f"bundles/{task}_lora32/configs/train.json"
    return (
        f"python -m monai.bundle run training --config_file {config} "
        f"--dataset_dir {shlex.quote(str(folder))}"
    )


def fetch(
    url: str, archive: Path, md5: str, *, waits: Sequence[float] = WAITS, limit: int = LIMIT
) -> None:
    """Download a file over HTTP, going on from ``<archive>.part`` if that is there.

    Args:
        url: address of the file.
        archive: the file to write; it appears once it is complete and its checksum is right.
        md5: the expected MD5, 32 hexadecimal digits.
        waits: seconds to wait before each new try; tries that got further start the count anew.
        limit: the most bytes to take, whatever the server says of the file's size, or keeps quiet.

    Raises:
        ValueError: the server refuses, the file is too large, the checksum differs, or the disk is
            too small.
        ConnectionError: the connection dropped more often than `waits` allows.
    """
    part, version = _beside(archive)
    failures = 0
    while True:
        before = _size(part)
        try:
            _receive(url, archive, limit)
            break
        except DROPPED as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures > len(waits):
                raise ConnectionError(
                    f"{url}: the connection dropped ({error}) with {_size(part)} bytes in {part}; "
                    "run the same command again to go on from there"
                ) from error
        logger.warning("connection dropped; next try in %g s", waits[failures - 1])
        time.sleep(waits[failures - 1])
    version.unlink(missing_ok=True)
    check_md5(part, md5, url)
    part.replace(archive)


def check_md5(archive: Path, expected: str, source: str) -> None:
    """Compare a file's checksum with the published one; a file that differs is removed.

    Args:
        archive: the file.
        expected: MD5 as 32 hexadecimal digits.
        source: where the file came from, for the message.

    Raises:
        ValueError: the checksum differs.
    """
    if not check_hash(archive, expected, "md5"):
        size = archive.stat().st_size
        archive.unlink()
        raise ValueError(
            f"{source}: expected a file with MD5 {expected}, got another one of {size} bytes; it "
            "is removed, so that the next download starts clean"
        )


def extract_folder(
    archive: Path, folder: Path, *, check: Callable[[Path], object] = lambda _: None
) -> None:
    """Extract the one folder of a tar archive, whole or not at all.

    Every member's name and kind is checked before the first byte is written; only files and
    folders are let through, since a link is what tricks extraction filters. Files that macOS adds
    are left out. The members go into a hidden folder beside `folder`, which is then renamed.

    Args:
        archive: a tar archive that holds a folder of `folder`'s name.
        folder: the folder to make; it must be absent or empty.
        check: is called with the extracted folder before the renaming; may raise.

    Raises:
        ValueError: the archive is no tar file, is cut off, has a member that would leave `folder`'s
            parent, a link or a device, or lacks the folder; or the disk is too small.
    """
    draft = folder.with_name(f".{folder.name}.extracting")
    shutil.rmtree(draft, ignore_errors=True)  # left by an interrupted run
    draft.mkdir(parents=True)
    try:
        with tarfile.open(archive) as tar:
            members = _safe_members(tar, archive, draft)
            purpose = f"extracting {archive.name}"
            _check_space(draft.parent, sum(member.size for member in members), purpose)
            # Python's own filter as a second lock; patch releases before June 2023 lack it.
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            for member in tqdm(members, desc=purpose, unit="file", mininterval=0.5):
                tar.extract(member, draft)
        if not (draft / folder.name).is_dir():
            raise ValueError(
                f"{archive}: expected an archive of the folder {folder.name}, got none"
            )
        check(draft / folder.name)
        (draft / folder.name).replace(folder)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(
            f"{archive}: expected a whole tar archive, got an error ({error})"
        ) from error
    finally:
        shutil.rmtree(draft)


def _safe_members(tar: tarfile.TarFile, archive: Path, draft: Path) -> list[tarfile.TarInfo]:
    members = tar.getmembers()
    for member in members:
        try:
            safe_extract_member(member, draft)  # refuses links and whatever leaves the folder
            if not (member.isfile() or member.isdir()):
                raise ValueError("Device detected in archive")
        except ValueError as error:
            raise ValueError(
                f"{archive}: expected files and folders inside the archive's own folder, "
                f"got {member.name!r} ({error})"
            ) from error
    return [
        member
        for member in members
        if not any(part.startswith(HIDDEN) for part in PurePosixPath(member.name).parts)
    ]


def _check_space(folder: Path, needed: int, purpose: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        expected, got = (tqdm.format_sizeof(size, "B", 1024) for size in (needed, free))
        raise ValueError(
            f"{folder}: expected {expected} of free disk space for {purpose}, got {got}"
        )


def _complete(folder: Path) -> Path:
    try:
        read_task(folder)
    except ValueError as error:
        raise ValueError(
            f"{folder}: found a folder that is no complete task ({error}); "
            "remove or rename it to download the task"
        ) from error
    return folder


def _beside(archive: Path) -> tuple[Path, Path]:
    """Return the paths of the partial download and of the version that it was begun from."""
    part = archive.with_name(f"{archive.name}.part")
    return part, part.with_name(f"{part.name}.version")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, archive: Path, limit: int) -> None:
    """Ask once for what is missing, and append it to the partial download."""
    part, version = _beside(archive)
    have = _size(part)
    known = version.read_text(encoding="utf-8") if have and version.exists() else None
    try:
        response = urlopen(_request(url, have, known), timeout=TIMEOUT)
    except HTTPError as error:
        with error:
            if error.code == 416 and have:
                if _content_range(error.headers) == (None, have):
                    return  # nothing was missing
                part.unlink()
                return _receive(url, archive, limit)
            if error.code in TRY_AGAIN:
                raise ConnectionError(f"HTTP {error.code} {error.reason}") from error
            raise ValueError(
                f"{url}: expected a file, got HTTP {error.code} ({error.reason})"
            ) from error
    with response:
        if have and response.status == 206 and _goes_on(response.headers, have, known):
            return _append(response, archive, have, limit)
        part.unlink(missing_ok=True)  # first, so that no old part meets a new version
        if not have or response.status != 206:
            return _append(response, archive, 0, limit)
    return _receive(url, archive, limit)  # another part of the file than asked for


def _request(url: str, have: int, known: str | None) -> Request:
    request = Request(url, headers={"User-Agent": "lora_ext"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if known:
            request.add_header("If-Range", known)
    return request


def _append(response: Any, archive: Path, have: int, limit: int) -> None:
    length = response.headers.get("Content-Length")
    total = _content_range(response.headers)[1] or (have + int(length) if length else None)
    part, version = _beside(archive)
    _check_limit(archive, total or 0, limit)
    if total is not None:
        _check_space(part.parent, 2 * total - have, f"{archive.name}, packed and extracted")
    if not have:
        version.unlink(missing_ok=True)
        if found := _version(response.headers):
            with whole_file(version) as draft:
                draft.write_text(found, encoding="utf-8")
    units: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    bar = tqdm(
        total=total, initial=have, desc=f"downloading {archive.name}", mininterval=0.5, **units
    )
    with part.open("ab") as file, bar:
        while block := response.read(CHUNK):
            _check_limit(archive, file.tell() + len(block), limit)
            _check_space(part.parent, len(block), archive.name)
            file.write(block)
            bar.update(len(block))
    if total is not None and _size(part) < total:
        raise ConnectionError(f"closed at {_size(part)} of {total} bytes")


def _check_limit(archive: Path, size: int, limit: int) -> None:
    if size > limit:
        _beside(archive)[0].unlink(missing_ok=True)
        raise ValueError(
            f"{archive.name}: expected at most {limit} bytes from the server, got {size} or more; "
            "check the address"
        )


def _goes_on(headers: Message, have: int, known: str | None) -> bool:
    """Return whether a partial answer continues the partial download, of the same version."""
    return _content_range(headers)[0] == have and known in (None, _version(headers))


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """Return the first byte and the whole file's size, None where the server does not say."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", ""))
    first, total = match.groups() if match else (None, None)
    return (int(first) if first else None, int(total) if total and total != "*" else None)


def _version(headers: Message) -> str | None:
    """Return the strong ETag or else the date, as HTTP allows in If-Range (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
