"""Weights by address, from a local server that speaks the hub's protocol; nothing leaves here."""

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from lora_ext import load_encoder
from lora_ext.weights.remote import local_file

huggingface_hub = pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO, FILE = "clinic/vit", "encoders/vit-b.safetensors"


class Hub(BaseHTTPRequestHandler):
    """The hub's answers for one file: HEAD and GET /owner/name/resolve/revision/path."""

    content = b""
    asked: list = []  # noqa: RUF012 (of the class: one server)

    def _answer(self, body):
        if not self.path.startswith("/api/"):  # the library tells who it is
            self.asked.append((self.command, self.path, self.headers.get("Authorization")))
        where = self.path.split("?")[0]
        repo, _, rest = where.strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        if where == "/files/vit.safetensors":
            return self._send(200, body)
        if not rest:
            return self._send(404, False)
        if repo == "clinic/gated":
            return self._send(403, False, **{"X-Error-Code": "GatedRepo"})
        if repo != REPO:
            return self._send(404, False, **{"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", "v2", COMMIT):
            return self._send(404, False, **{"X-Error-Code": "RevisionNotFound"})
        if file != FILE:
            return self._send(
                404, False, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
            )
        digest = hashlib.sha256(self.content).hexdigest()
        linked = {"X-Linked-Size": str(len(self.content)), "X-Linked-ETag": f'"{digest}"'}
        return self._send(200, body, **{"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"'}, **linked)

    def _send(self, status, body, **headers):
        content = self.content if status == 200 else b""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    Hub.content, Hub.asked = os.urandom(4000), []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    """The library's settings as HF_ENDPOINT, HF_HOME and TORCH_HOME would make them."""
    constants = huggingface_hub.constants
    template = server + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    Hub.asked.clear()
    return constants


def content(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize("revision", ["", "@main", "@v2", f"@{COMMIT}"])
def test_file_of_the_hub_is_downloaded_once(hub, tmp_path, revision):
    for _ in range(2):
        path = local_file(f"hf://{REPO}/{FILE}{revision}")
        assert content(path) == Hub.content
        assert str(tmp_path / "hub") in path
    assert [command for command, *_ in Hub.asked].count("GET") == 1
    wanted = revision.removeprefix("@") or "main"
    assert f"/{REPO}/resolve/{wanted}/{FILE}" in {path for _, path, _ in Hub.asked}


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("hf://clinic/none/v.pt", "no repository clinic/none is at http"),
        ("hf://clinic/gated/v.pt", "found a repository whose licence has to be accepted first"),
        (f"hf://{REPO}/v.pt", f"{REPO} has no file 'v.pt'; see its files at http"),
        (f"hf://{REPO}/{FILE}@old", f"{REPO} has no revision 'old'"),
        ("hf://clinic/vit", "expected hf://owner/name/path/to/file, with @revision"),
        ("hf://clinic/vit/", "expected hf://owner/name/path/to/file"),
        ("s3://bucket/v.pt", "found an address of another kind; expected hf://owner"),
        ("https://h/v.pt", "expected an address that ends with #sha256="),
        ("https://h/v.pt::sha256=12", "expected an address that ends with #sha256="),
    ],
)
def test_what_is_not_there_is_one_sentence(hub, address, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        local_file(address)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(address.split("::")[0])


def test_offline_takes_the_copy_and_misses_what_there_is_none_of(hub, monkeypatch):
    path = local_file(f"hf://{REPO}/{FILE}")
    Hub.asked.clear()
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert local_file(f"hf://{REPO}/{FILE}") == path
    with pytest.raises(ValueError, match=r"expected it in the cache .* HF_HUB_OFFLINE is set"):
        local_file(f"hf://{REPO}/other.pt")
    assert not Hub.asked


def test_without_a_network_the_copy_is_taken_or_the_sentence_says_so(hub, monkeypatch):
    path = local_file(f"hf://{REPO}/{FILE}")
    template = hub.HUGGINGFACE_CO_URL_TEMPLATE.replace(hub.ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # it tries six times
    assert local_file(f"hf://{REPO}/{FILE}") == path
    with pytest.raises(ValueError, match=r"http://127.0.0.1:9 cannot be reached and the cache"):
        local_file(f"hf://{REPO}/other.pt")


@pytest.mark.parametrize("mark", ["#", "::"])  # MONAI makes the second of the first
def test_file_of_the_web_is_checked_and_downloaded_once(hub, server, tmp_path, mark):
    digest = hashlib.sha256(Hub.content).hexdigest()
    for _ in range(2):
        path = local_file(f"{server}/files/vit.safetensors{mark}sha256={digest.upper()}")
        assert content(path) == Hub.content
        assert path.endswith("/vit.safetensors")
        assert str(tmp_path / "torch") in path
    assert len(Hub.asked) == 1


@pytest.mark.parametrize(
    ("file", "digest", "sentence"),
    [
        ("/files/vit.safetensors", "0" * 64, "found a file with another checksum than sha256=000"),
        ("/files/none.pt", "0" * 64, r"expected a file, got HTTP 404 \(Not Found\)"),
        (None, "0" * 64, "could not be downloaded .*; check the network"),
    ],
)
def test_wrong_files_of_the_web_leave_nothing(hub, server, tmp_path, file, digest, sentence):
    url = f"{server}{file}" if file else "http://127.0.0.1:9/v.pt"
    with pytest.raises(ValueError, match=sentence) as error:
        local_file(f"{url}#sha256={digest}")
    assert "\n" not in str(error.value)
    left = [path.name for path in (tmp_path / "torch").rglob("*") if path.is_file()]
    assert set(left) <= {".lock"}


def test_processes_that_ask_at_once_download_once(hub, server):
    digest = hashlib.sha256(Hub.content).hexdigest()
    address, found = f"{server}/files/vit.safetensors#sha256={digest}", []
    threads = [
        threading.Thread(target=lambda: found.append(content(local_file(address))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Hub.content] * 4
    assert len(Hub.asked) == 1


def test_encoder_is_loaded_and_named_by_its_address(
    hub, monkeypatch, small_network, vit, tmp_path, holds
):
    torch.save(vit.state_dict(), tmp_path / "vit.pt")
    monkeypatch.setattr(Hub, "content", (tmp_path / "vit.pt").read_bytes())
    network = small_network()
    report = load_encoder(network, f"hf://{REPO}/{FILE}@v2")
    assert holds(network, vit)
    assert f"encoder loaded from hf://{REPO}/{FILE}@v2: 49 keys" in str(report)


@pytest.mark.parametrize("path", ["vit.pt", "~/a b/vit.pt", "C:/vit.pt", "/x@y/vit.pt"])
def test_path_stays_a_path(path):
    assert local_file(path) == path


@pytest.mark.slow
def test_the_librarys_own_variables_hold(server, tmp_path):
    """HF_ENDPOINT, HF_HOME and HF_TOKEN, which the library reads when it is imported."""
    Hub.asked.clear()
    code = (
        f"from lora_ext.weights.remote import local_file; print(local_file('hf://{REPO}/{FILE}'))"
    )
    environment = os.environ | {
        "HF_ENDPOINT": server, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_secret",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, encoding="utf-8", check=True, env=environment,
    )  # fmt: skip
    path = done.stdout.split()[-1]
    assert path.startswith(str(tmp_path))
    assert content(path) == Hub.content
    assert {token for *_, token in Hub.asked} == {"Bearer hf_secret"}
