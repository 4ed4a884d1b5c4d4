"""One large file over HTTP: resumed after a broken connection, checked, whole or not at all.

What has come lies in ``<archive>.part``, and the version of the server's file that it belongs to
in ``<archive>.part.version``, so that two versions are never glued together.
"""

from __future__ import annotations

import http.client
import logging
import re
import ssl
import time
from collections.abc import Sequence
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from lora_ext.data.archives import BAR, CHUNK, check_md5, check_space
from lora_ext.files import whole_file

logger = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds without a byte
WAITS = (1.0, 2.0, 5.0, 10.0, 20.0)  # seconds before each new try
TRY_AGAIN = (408, 429, 500, 502, 503, 504)  # HTTP states that pass
DROPPED = (URLError, ConnectionError, TimeoutError, http.client.HTTPException, ssl.SSLError)


def fetch(url: str, archive: Path, md5: str, *, waits: Sequence[float] = WAITS) -> None:
    """Download a file over HTTP, going on from ``<archive>.part`` if that is there.

    Args:
        url: address of the file.
        archive: the file to write; it appears once it is complete and its checksum is right.
        md5: the expected MD5, 32 hexadecimal digits.
        waits: seconds to wait before each new try; tries that got further start the count anew.

    Raises:
        ValueError: the server refuses, the checksum differs, or the disk is too small.
        ConnectionError: the connection dropped more often than `waits` allows.
    """
    part, version = _beside(archive)
    failures = 0
    while True:
        before = _size(part)
        try:
            _receive(url, archive)
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


def _beside(archive: Path) -> tuple[Path, Path]:
    """The partial download, and the version of the server's file that it was begun from."""
    part = archive.with_name(f"{archive.name}.part")
    return part, part.with_name(f"{part.name}.version")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, archive: Path) -> None:
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
                return _receive(url, archive)
            if error.code in TRY_AGAIN:
                raise ConnectionError(f"HTTP {error.code} {error.reason}") from error
            raise ValueError(f"{url}: found HTTP {error.code} ({error.reason})") from error
    with response:
        if have and response.status == 206 and _goes_on(response.headers, have, known):
            return _append(response, archive, have)
        part.unlink(missing_ok=True)  # first, so that no old part meets a new version
        if not have or response.status != 206:
            return _append(response, archive, 0)
    return _receive(url, archive)  # another part of the file than asked for


def _request(url: str, have: int, known: str | None) -> Request:
    request = Request(url, headers={"User-Agent": "lora_ext"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if known:
            request.add_header("If-Range", known)
    return request


def _append(response: Any, archive: Path, have: int) -> None:
    length = response.headers.get("Content-Length")
    total = _content_range(response.headers)[1] or (have + int(length) if length else None)
    part, version = _beside(archive)
    if total is not None:
        check_space(part.parent, 2 * total - have, f"{archive.name}, packed and extracted,")
    if not have:
        _remember(version, response.headers)
    bar = tqdm(total=total, initial=have, desc=f"downloading {archive.name}", **BAR)
    with part.open("ab") as file, bar:
        while block := response.read(CHUNK):
            file.write(block)
            bar.update(len(block))
    if total is not None and _size(part) < total:
        raise ConnectionError(f"closed at {_size(part)} of {total} bytes")


def _goes_on(headers: Message, have: int, known: str | None) -> bool:
    """Whether a partial answer continues the partial download, of the same version."""
    return _content_range(headers)[0] == have and known in (None, _version(headers))


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """First byte and size of the whole file, each None if the server does not say."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", ""))
    first, total = match.groups() if match else (None, None)
    return (int(first) if first else None, int(total) if total and total != "*" else None)


def _version(headers: Message) -> str | None:
    """The strong ETag, or else the date: what HTTP allows in If-Range (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _remember(version: Path, headers: Message) -> None:
    version.unlink(missing_ok=True)
    if found := _version(headers):
        with whole_file(version) as draft:
            draft.write_text(found, encoding="utf-8")
