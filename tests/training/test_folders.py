"""A training begins in a folder that it can write, that is its own, and that holds no model."""

import subprocess
import sys

import ignite.distributed as idist
import pytest
from monai.bundle import ConfigParser

from lora_ext.training.folders import check_either, check_no_model, prepare_folders

MODELS = [["model.pt"], ["last.ckpt"], ["model.pt", "last.ckpt"]]


@pytest.fixture
def prepare(tmp_path):
    def run():
        prepare_folders(tmp_path / "eval", tmp_path / "models")

    return run


@pytest.fixture(params=MODELS, ids="+".join)
def trained(request, tmp_path):
    """What an earlier training left in the folder of models."""
    (tmp_path / "models").mkdir()
    for name in request.param:
        (tmp_path / "models" / name).touch()
    return request.param


def test_folders_are_made(prepare, tmp_path):
    prepare()
    assert {path.name for path in tmp_path.iterdir()} == {"eval", "models"}


def test_new_training_does_not_replace_a_model(prepare, trained, tmp_path):
    prepare()
    with pytest.raises(ValueError, match=r"models: found .* of an earlier training, .*--resume Tr"):
        check_no_model(tmp_path / "models")


def test_new_training_in_an_empty_folder_goes_ahead(prepare, tmp_path):
    prepare()
    check_no_model(tmp_path / "models")


def test_what_trains_nothing_does_not_look_for_models(trained, tmp_path):
    prepare_folders(tmp_path / "models")


def test_both_flags_contradict_each_other():
    with pytest.raises(ValueError, match="found both True; give"):
        check_either(resume=True, overwrite=True)


@pytest.mark.parametrize("name", ["eval", "models"])
def test_folder_that_cannot_be_one_is_found_before_the_training(prepare, tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"{name}: found a file in the place of a folder"):
        prepare()


HOLD = """
import sys, time
from pathlib import Path
from lora_ext.files import hold_folder, make_folder
for folder in sys.argv[1:]:
    make_folder(folder)
    hold_folder(folder, "")
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("theirs", "flag"),
    [
        (["eval", "theirs"], "output_dir"),
        (["theirs", "models"], "ckpt_dir"),
        (["eval"], "output_d"),
    ],
)
def test_two_runs_do_not_share_a_folder(prepare, tmp_path, theirs, flag):
    command = [sys.executable, "-c", HOLD, *(str(tmp_path / name) for name in theirs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match=f"another run at work .* --{flag}"):
            prepare()
        other.kill()
    prepare()


def test_only_rank_0_touches_the_folders(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr(idist, "get_rank", lambda: 1)
    prepare()
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_runs_are_removed_at_the_start(prepare, tmp_path):
    code = "import sys, os, lora_ext.files as f\nwith f.whole_file(sys.argv[1]): os._exit(9)"
    for target in ("models/model.pt", "eval/report.html", "eval/figures/a.png"):
        subprocess.run([sys.executable, "-c", code, tmp_path / target], check=False)
        assert list((tmp_path / target).parent.glob(".*.draft"))
    prepare()
    assert not list(tmp_path.rglob("*.draft"))


def test_path_that_monai_spells_differently_is_refused(prepare, tmp_path):
    """ConfigParser makes ``::`` of a ``#`` in any text."""
    text = ConfigParser({"x": str(tmp_path / "a#b")}).get_parsed_content("x")
    with pytest.raises(ValueError, match=r"--output_dir: found .*a::b, expected a path without #"):
        prepare_folders(text)
    assert list(tmp_path.iterdir()) == []
