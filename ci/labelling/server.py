"""MONAI Label's REST API, as far as the check asks it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from requests_toolbelt import MultipartDecoder

FINISHED = ("DONE", "ERROR", "STOPPED")


@dataclass(frozen=True)
class Answer:
    """What the server answers to an inference.

    Attributes:
        path: the label map, as a file.
        label_names: value of each label, by the label's name.
        seconds: from the request to the answer.
    """

    path: Path
    label_names: dict[str, int]
    seconds: float


class Server:
    """A running server.

    Args:
        url: its address.
        folder: where to put the label maps that it answers with.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url.rstrip("/")
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def info(self) -> dict[str, Any]:
        """Models, trainers and their labels."""
        return self._ask("get", "/info/").json()

    def add_image(self, name: str, path: Path) -> None:
        """Put an image into the datastore."""
        with path.open("rb") as stream:
            self._ask("put", f"/datastore/image?image={name}", files={"file": (path.name, stream)})

    def add_label(self, name: str, path: Path) -> None:
        """Submit an image's final label map, as a viewer does."""
        with path.open("rb") as stream:
            files = {"label": (path.name, stream)}
            self._ask("put", f"/datastore/label?image={name}&tag=final", files=files)

    def infer(self, model: str, image: str) -> Answer:
        """Segment an image of the datastore."""
        start = time.perf_counter()
        response = self._ask("post", f"/infer/{model}?image={image}")
        seconds = time.perf_counter() - start
        parts = {_name(part): part for part in MultipartDecoder.from_response(response).parts}
        path = self.folder / f"{model}_{image}.nii.gz"
        path.write_bytes(parts["image"].content)
        return Answer(path, json.loads(parts["params"].text)["label_names"], seconds)

    def segment_unlabelled(self, model: str, count: int) -> str:
        """Segment the first images without labels, into the datastore; return the last lines."""
        params = {"device": "cpu", "multi_gpu": False, "max_batch_size": count}
        return self._wait("/batch/infer/", f"{model}?images=unlabeled", params)

    def train(self, model: str, **params: Any) -> str:
        """Train a round on the datastore's final labels; return its last lines."""
        return self._wait("/train/", model, params)

    def _wait(self, kind: str, task: str, params: dict[str, Any], timeout: float = 1200) -> str:
        """Start a task of the server's and wait until it ends."""
        number = self._ask("post", kind + task, json=params).json()["id"]
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            time.sleep(2)
            tasks = {t["id"]: t for t in self._ask("get", f"{kind}?all=true").json()}
            status = tasks[number]["status"]
            lines = "\n".join(tasks[number].get("details", []))
            if status in FINISHED:
                if status != "DONE":
                    raise RuntimeError(f"{kind}{task} ended with {status}:\n{lines}")
                return lines
        raise RuntimeError(f"{kind}{task} was not done after {timeout:.0f} s")

    def _ask(self, method: str, path: str, **content: Any) -> requests.Response:
        response = requests.request(method, self.url + path, timeout=600, **content)
        if not response.ok:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text[:500]}")
        return response


def _name(part: Any) -> str:
    disposition = part.headers[b"Content-Disposition"].decode()
    return disposition.partition('name="')[2].partition('"')[0]
