import subprocess
import sys

import pytest

import lora_ext


@pytest.mark.parametrize("name", lora_ext.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(lora_ext, name).__doc__


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lora_ext.nothing


def test_import_and_the_generator_need_neither_torch_nor_monai():
    code = (
        "import sys, lora_ext, lora_ext.bundles.generator as g; g.bundle_facts();"
        "sys.exit(bool({'torch', 'monai', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bad_input_ends_the_command_line_with_one_sentence(tmp_path):
    command = [
        sys.executable,
        "-m",
        "lora_ext",
        "phantom",
        "--task",
        "liver",
        "--out",
        str(tmp_path / "x"),
    ]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "liver" in done.stderr
    assert "brats" in done.stderr
    assert len(done.stderr.splitlines()) == 1
