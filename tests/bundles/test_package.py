"""Zip files, unzipped elsewhere, in a Python that has the dependencies and not `lora_ext`."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import monai
import pytest
import torch

from lora_ext.__main__ import package as package_verb
from lora_ext.bundles import package
from lora_ext.bundles.package import package_bundle

SITE = Path(monai.__file__).parents[1]
NAME = "brats_lora16"


@pytest.fixture
def unzipped(tmp_path, weights, monkeypatch):
    """A function that packages a bundle, unzips it elsewhere, and returns its folder there."""
    monkeypatch.setattr(package, "build_wheel", lambda out: None)  # has tests of its own

    def make(bundle=NAME, **settings) -> Path:
        packed = package_bundle(bundle, tmp_path / "out", **settings)
        with zipfile.ZipFile(packed.archive) as archive:
            archive.extractall(tmp_path / "unzipped")
        return tmp_path / "unzipped" / bundle

    monkeypatch.chdir(tmp_path)  # where there is no folder of bundles
    return make


@pytest.fixture
def bare():
    """A function that runs this Python without `lora_ext`: -S leaves out an editable install."""

    def run(arguments, cwd, *more_paths):
        paths = os.pathsep.join(map(str, [*more_paths, SITE]))
        done = subprocess.run(
            [sys.executable, "-S", *map(str, arguments)],
            capture_output=True, encoding="utf-8", check=False, cwd=cwd,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return done

    return run


def commands(bundle):
    """The commands of a bundle's docs, as a user would copy them."""
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def command(bundle, word):
    """The one command that has this word, without ``python``."""
    (found,) = [line for line in commands(bundle) if f" {word} " in line and "torchrun" not in line]
    return shlex.split(found)[1:]


def test_zip_has_one_folder_with_all_that_a_bundle_needs(unzipped, weights):
    bundle = unzipped(models=weights())
    assert [p.name for p in bundle.parent.iterdir()] == [NAME]
    assert {p.name for p in bundle.iterdir()} == {
        "LICENSE", "configs", "docs", "lora_ext", "models", "requirements.txt"
    }  # fmt: skip
    assert {p.name for p in (bundle / "models").iterdir()} == {
        "model.pt", "network.json", "adapter.safetensors"
    }  # fmt: skip
    assert "`models/` holds trained weights" in (bundle / "docs" / "README.md").read_text(
        encoding="utf-8"
    )
    assert "bundles/" not in " ".join(commands(bundle))


def test_same_bundle_gives_the_same_bytes(unzipped, weights, tmp_path):
    models = weights()
    archives = [package_bundle(NAME, tmp_path / n, models).archive for n in ("a", "b")]
    assert archives[0].name == f"{NAME}_v0.1.0.zip"
    assert archives[0].read_bytes() == archives[1].read_bytes()


def test_packaging_what_was_unzipped_gives_the_same_again(unzipped, weights, tmp_path):
    bundle = unzipped(models=weights())
    again = package_bundle(bundle, tmp_path / "again").archive
    assert again.read_bytes() == (tmp_path / "out" / again.name).read_bytes()


def test_lora_ext_is_not_there_without_the_bundle(bare, tmp_path):
    done = bare(["-c", "import lora_ext"], tmp_path)
    assert "No module named 'lora_ext'" in done.stderr


def test_config_uses_the_package_of_its_own_bundle_from_another_folder(
    bare, unzipped, weights, tasks, root, tmp_path
):
    """Even where another `lora_ext` could be imported, here this repository's."""
    bundle = unzipped(models=weights())
    with (bundle / "lora_ext" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write("\nprint('imported', __file__)\n")
    run = ["-m", "monai.bundle", "run", "--config_file", bundle / "configs" / "inference.json"]
    done = bare([*run, "--dataset_dir", tasks["brats"], "--num_workers", "0"], tmp_path, root)
    assert done.returncode == 0, done.stderr
    assert f"imported {bundle}/lora_ext/__init__.py" in done.stdout
    segmentations = bundle / "eval" / "segmentations"
    assert [p.name for p in segmentations.glob("[!.]*")] == ["brats_0006.nii.gz"]


BY_HAND = """
import sys
from monai.bundle import ConfigParser
bundle = sys.argv[1]
sys.path.insert(0, bundle)
parser = ConfigParser()
parser.read_config(bundle + "/configs/inference.json")
parts = [parser.get_parsed_content(p, instantiate=True) for p in sys.argv[2:]]
sys.path.remove(bundle)
print(parser.get_parsed_content("bundle_root"), *[type(part).__name__ for part in parts])
"""


def test_config_can_be_read_as_the_zoo_and_monai_label_do(bare, unzipped, weights, tmp_path):
    """Both put the bundle on sys.path themselves, and read single items without a workflow."""
    bundle = unzipped(models=weights())
    parts = ("network_def", "preprocessing", "inferer", "postprocessing")
    done = bare(["-c", BY_HAND, bundle, *parts], tmp_path)
    assert done.returncode == 0, done.stderr
    kinds = ["ChannelLoRAUNETR", "Compose", "AveragingInferer", "Compose"]
    assert done.stdout.split() == [str(bundle), *kinds]


@pytest.mark.slow
@pytest.mark.parametrize("inside", [True, False], ids=["from_its_folder", "from_another_folder"])
def test_commands_of_the_docs_work_where_the_package_is_not_installed(
    bare, unzipped, weights, tasks, tmp_path, inside
):
    bundle = unzipped(models=weights())
    cwd = bundle if inside else tmp_path

    def run(word, *more):
        arguments = command(bundle, word)
        if not inside:
            arguments = [re.sub(r"(configs|models)/", rf"{bundle}/\1/", a) for a in arguments]
        given = {"DATA": str(tasks["brats"]), "OUT": str(tmp_path / "segmented")}
        done = bare([given.get(a, a) for a in [*arguments, *more]], cwd)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "pooled" in run("evaluating", "--num_workers", "0")
    run("--output_dir", "--num_workers", "0")
    assert (tmp_path / "segmented" / "brats_0006.nii.gz").is_file()
    run("verify_net_in_out")
    run("ckpt_export")
    image = torch.rand(1, 4, 32, 32, 16)
    assert torch.jit.load(bundle / "models" / "model.ts")(image).shape == (1, 3, 32, 32, 16)
    run("onnx_export")
    assert (bundle / "models" / "model.onnx").is_file()
    short = ["--epochs", "1", "--num_workers", "0", "--ckpt_dir", tmp_path / "new"]
    run("training", *short, "--pretrained", "none", "--output_dir", tmp_path / "new")
    assert (tmp_path / "new" / "model.pt").is_file()


def test_verb_says_what_was_written(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package_verb("prostatex_lora16", "o", spacing=(1.0, 1.0, 3.0))
    archive, wheel = capsys.readouterr().out.splitlines()
    assert archive.startswith("o/prostatex_lora16_v0.1.0.zip (0.")
    assert archive.endswith("without trained weights)")
    assert wheel == "o/lora_ext-0.1.0-py3-none-any.whl"
    assert Path(wheel).is_file()
    with zipfile.ZipFile(tmp_path / "o" / "prostatex_lora16_v0.1.0.zip") as packed:
        config = json.loads(packed.read("prostatex_lora16/configs/inference.json"))
    assert config["trained"]["default"]["spacing"] == [1.0, 1.0, 3.0]
