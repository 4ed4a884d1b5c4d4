"""What must never be committed: secrets, paths of somebody's machine, data of patients."""

import re
import subprocess

import pytest

SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b"
    r"|\bhf_[A-Za-z0-9]{30,}\b|\bsk-[A-Za-z0-9_-]{32,}\b|://(?!user:password@)[^/\s:@{}]+:[^/\s:@{}]+@"
)
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w")
DATA = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".dcm", ".pt", ".ckpt", ".safetensors")


@pytest.fixture
def committed(root):
    """Every committed file, by path."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, encoding="utf-8", check=False
    )
    names = [name for name in done.stdout.split("\0") if name and (root / name).is_file()]
    names = [name for name in names if not name.endswith("test_repository.py")]  # its examples
    if not names:
        pytest.skip("no checkout of git")
    return {name: root / name for name in names}


def found(committed, pattern):
    hits = {}
    for name, path in committed.items():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        for match in pattern.finditer(text):
            hits.setdefault(name, []).append(match.group())
    return hits


def test_no_secret_is_committed(committed):
    assert found(committed, SECRETS) == {}


def test_no_path_of_a_machine_is_committed(committed):
    assert found(committed, MACHINE) == {}


def test_no_image_and_no_weights_are_committed(committed):
    assert [name for name in committed if name.endswith(DATA)] == []


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE KEY-----",
        "hf_" + "a" * 34,
        "ghp_" + "A1" * 18,
        "AKIA" + "A" * 16,
        "https://user" + ":word@host/x",
    ],
)
def test_a_secret_would_be_found(text):
    assert SECRETS.search(text)


def test_a_machine_path_would_be_found():
    assert MACHINE.search("see " + "/ho" + "me/anna/data")
