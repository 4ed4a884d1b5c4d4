"""A file from a server on this machine that drops connections, ignores ranges or changes it."""

from __future__ import annotations

import hashlib
import http.server
import random
import shutil
import threading
from collections import namedtuple

import pytest

from lora_ext.data.download import fetch

FILE = random.Random(0).randbytes(1_200_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, with the faults that a test asks for, and remembers the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}/task.tar"
        self.file = FILE
        self.tag: str | None = '"one"'
        self.date: str | None = None
        self.ranges = True  # whether Range is understood
        self.if_range = True  # whether If-Range is understood
        self.lengths = True  # whether an answer says how long it is
        self.cuts: list[int] = []  # bytes sent before the connection drops, for the next requests
        self.states: list[int] = []  # HTTP states for the next requests
        self.requests: list[tuple[str | None, str | None]] = []  # Range and If-Range
        self.sent: list[int] = []  # bytes of each answer's body


class Answer(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server, total = self.server, len(self.server.file)
        server.requests.append((self.headers["Range"], self.headers["If-Range"]))
        if server.states:
            return self.send_error(server.states.pop(0))
        first = self.first_byte()
        if first is not None and first >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            return self.end_headers()
        self.send_response(200 if first is None else 206)
        body = server.file[first or 0 :]
        headers = {
            "ETag": server.tag,
            "Last-Modified": server.date,
            "Content-Length": server.lengths and str(len(body)),
            "Content-Range": first is not None and f"bytes {first}-{total - 1}/{total}",
        }
        for key, value in headers.items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        body = body[: server.cuts.pop(0)] if server.cuts else body
        server.sent.append(len(body))
        self.wfile.write(body)

    def first_byte(self):
        server, condition = self.server, self.headers["If-Range"]
        same = not server.if_range or condition in (None, server.tag, server.date)
        if server.ranges and same and self.headers["Range"]:
            return int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def archive(tmp_path):
    return tmp_path / "task.tar"


def get(server, archive, *, tries=1, file=None):
    expected = hashlib.md5(server.file if file is None else file).hexdigest()
    fetch(server.url, archive, expected, waits=[0] * (tries - 1))
    return archive.read_bytes() == server.file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_in_one_request_and_nothing_else_stays(server, archive):
    assert get(server, archive)
    assert server.requests == [(None, None)]
    assert names(archive.parent) == ["task.tar"]


def test_a_dropped_connection_is_taken_up_again_by_the_same_call(server, archive):
    server.cuts = [500_000, 300_000]
    assert get(server, archive, tries=2)
    assert [asked for asked, _ in server.requests] == [None, "bytes=500000-", "bytes=800000-"]
    assert server.sent == [500_000, 300_000, len(FILE) - 800_000]


def test_a_later_call_asks_only_for_the_rest_of_the_same_version(server, archive):
    server.cuts = [600_000]
    with pytest.raises(ConnectionError, match=r"600000 bytes in .*run the same command again"):
        get(server, archive)
    assert (archive.parent / "task.tar.part").read_bytes() == FILE[:600_000]
    assert not archive.exists()
    assert get(server, archive)
    assert server.requests[1] == ("bytes=600000-", '"one"')
    assert server.sent[1] == len(FILE) - 600_000
    assert names(archive.parent) == ["task.tar"]


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
@pytest.mark.parametrize("date", [None, "Sat, 01 Jan 2022 00:00:00 GMT"])
def test_without_a_strong_tag_the_date_is_the_version(server, archive, tag, date):
    server.tag, server.date, server.cuts = tag, date, [600_000]
    assert get(server, archive, tries=2)
    assert server.requests[1] == ("bytes=600000-", date)


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changed_meanwhile_is_not_glued_together(server, archive, if_range):
    server.cuts, server.if_range = [600_000], if_range
    with pytest.raises(ConnectionError):
        get(server, archive)
    server.file, server.tag = FILE[::-1], '"two"'
    assert get(server, archive)
    assert server.sent[-1] == len(FILE)


def test_a_server_without_ranges_starts_over(server, archive):
    server.ranges, server.cuts = False, [600_000]
    assert get(server, archive, tries=2)
    assert server.sent == [600_000, len(FILE)]


def test_a_part_longer_than_the_file_starts_over(server, archive):
    (archive.parent / "task.tar.part").write_bytes(FILE + b"more")
    assert get(server, archive)
    assert [asked for asked, _ in server.requests] == [f"bytes={len(FILE) + 4}-", None]


def test_a_part_that_was_complete_is_not_sent_again(server, archive):
    (archive.parent / "task.tar.part").write_bytes(FILE)
    assert get(server, archive)
    assert server.sent == []


def test_a_corrupted_file_is_refused_and_the_next_call_starts_clean(server, archive):
    server.file = FILE[:700_000] + b"?" + FILE[700_001:]
    with pytest.raises(
        ValueError, match=f"expected a file with MD5 {hashlib.md5(FILE).hexdigest()}"
    ):
        get(server, archive, file=FILE)
    assert names(archive.parent) == []
    server.file = FILE
    assert get(server, archive)
    assert server.requests[-1] == (None, None)


def test_a_server_that_does_not_say_the_length_is_checked_by_the_checksum(server, archive):
    server.lengths, server.cuts = False, [600_000]
    with pytest.raises(ValueError, match="got another one of 600000 bytes"):
        get(server, archive)
    assert get(server, archive)


def test_a_busy_server_is_asked_again_and_a_refusal_is_final(server, archive):
    server.states = [503, 500]
    assert get(server, archive, tries=3)
    server.states = [404]
    with pytest.raises(ValueError, match="HTTP 404"):
        get(server, archive.with_name("other.tar"), tries=3)
    assert len(server.requests) == 4


def test_the_given_waits_are_kept_and_then_it_ends_in_one_sentence(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr("lora_ext.data.download.time.sleep", waited.append)
    with pytest.raises(ConnectionError, match=r"http://127\.0\.0\.1:9/x: the connection dropped"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x", "", waits=(1, 3))
    assert waited == [1, 3]


def test_a_small_disk_is_said_before_the_first_byte_is_written(server, archive, monkeypatch):
    room = namedtuple("usage", "total used free")(4_000_000, 2_000_000, 2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    needed = r"expected 2\.29MB of free disk space for task\.tar, packed and extracted, got 1\.91MB"
    with pytest.raises(ValueError, match=needed):
        get(server, archive, tries=3)
    assert len(server.requests) == 1
    assert names(archive.parent) == []


@pytest.mark.parametrize("lengths", [True, False])
def test_no_more_is_taken_than_the_limit(server, archive, lengths):
    """Whatever the server says of the length, or does not."""
    server.lengths = lengths
    with pytest.raises(ValueError, match=r"task\.tar: expected at most 300000 bytes"):
        fetch(server.url, archive, "0" * 32, waits=[], limit=300_000)
    assert names(archive.parent) in ([], ["task.tar.part.version"])


def test_the_disk_is_looked_at_also_where_the_length_is_not_known(server, archive, monkeypatch):
    server.lengths = False
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(ValueError, match=r"of free disk space for task\.tar, got 0\.98kB"):
        get(server, archive)
