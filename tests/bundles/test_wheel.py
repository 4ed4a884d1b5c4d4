import subprocess
import sys
import zipfile

import pytest

from lora_ext.bundles import package as wheel
from lora_ext.bundles.generator import SOURCE


def test_nothing_is_built_where_there_is_no_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(wheel, "PACKAGE", tmp_path / "site-packages" / "lora_ext")
    assert wheel.build_wheel(tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


def left_behind(root):
    """What a build in the checkout itself would leave there."""
    return [(root / name).exists() for name in ("build", "dist", "lora_ext.egg-info")]


@pytest.mark.slow
def test_wheel_holds_the_package_with_its_data_and_repeats_byte_for_byte(root, tmp_path):
    before = left_behind(root)
    built = wheel.build_wheel(tmp_path / "a")
    assert built.name == "lora_ext-0.1.0-py3-none-any.whl"
    assert built.read_bytes() == wheel.build_wheel(tmp_path / "b").read_bytes()
    assert left_behind(root) == before
    packed = set(zipfile.ZipFile(built).namelist())
    assert {p.relative_to(root).as_posix() for p in SOURCE.rglob("*") if p.is_file()} <= packed
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", target, built], check=True)
    verb = [sys.executable, "-S", "-c", "import lora_ext; print(lora_ext.__file__)"]
    environment = {"PYTHONPATH": str(target)}
    done = subprocess.run(
        verb, capture_output=True, encoding="utf-8", check=True, env=environment, cwd=tmp_path
    )
    assert done.stdout.strip() == str(target / "lora_ext" / "__init__.py")
