import re
import sys
import time

import pytest
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, Lambdad, LoadImaged

from lora_ext.bundles import plain_errors
from lora_ext.bundles.starting import _print_error, user_error


def caught(expression):
    parser = ConfigParser({"imports": ["$import lora_ext"], "x": expression})
    with pytest.raises(RuntimeError) as error:
        parser.get_parsed_content("x")
    return error.value


def test_the_sentence_is_found_below_monais_wrapping():
    error = caught("$lora_ext.data.read_task('/nowhere')")
    assert "/nowhere" not in str(error).splitlines()[0]
    assert isinstance(user_error(error), ValueError)
    assert "/nowhere" in str(user_error(error))


def test_errors_of_other_packages_are_left_alone():
    assert user_error(caught("$int('seven')")) is None
    assert user_error(caught("$lora_ext.data.read_task()")) is None


def test_user_sees_one_sentence(capsys):
    error = caught("$lora_ext.data.read_task('/nowhere')")
    _print_error(type(error), error, error.__traceback__)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: /nowhere")
    assert len(lines) == 2


def test_other_errors_keep_their_traceback(capsys):
    error = caught("$int('seven')")
    _print_error(type(error), error, error.__traceback__)
    assert "Traceback" in capsys.readouterr().err


def test_traceback_is_kept_on_demand(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setenv("LORA_EXT_TRACEBACK", "1")
    plain_errors()
    assert sys.excepthook is sys.__excepthook__
    monkeypatch.delenv("LORA_EXT_TRACEBACK")
    plain_errors()
    assert sys.excepthook is _print_error


FAIL = """
import logging
import ignite.distributed as idist
from lora_ext.training import processes
from lora_ext.bundles import plain_errors
from lora_ext.data import read_task

plain_errors()
processes.join("cpu")
if {who}:
    {what}
processes.leave()
"""
SENTENCE = re.compile(r"^error: .*$", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["True", "idist.get_rank() == 0", "idist.get_rank() == 1"])
def test_of_two_processes_one_is_heard_and_both_end(in_two_processes, who):
    started = time.monotonic()
    done = in_two_processes(FAIL.format(who=who, what="read_task('/nowhere')"))
    assert done.returncode == 1
    assert time.monotonic() - started < 60
    before, report = done.stderr.split("torch/distributed/elastic", 1)
    alone = who.endswith("1")  # rank 0 alone speaks for itself, and torchrun for all
    assert len(SENTENCE.findall(before)) == (0 if alone else 1)
    assert "Traceback" not in before
    assert "traceback : error: /nowhere" in report  # torchrun's own, at the very end


@pytest.mark.slow
def test_traceback_of_another_error_comes_from_the_process_it_is_of(in_two_processes):
    done = in_two_processes(FAIL.format(who="idist.get_rank() == 1", what="int('seven')"))
    assert done.returncode == 1
    before, report = done.stderr.split("torch/distributed/elastic", 1)
    assert "Traceback" not in before  # rank 0 lost its peer, which is no news
    assert "ValueError: invalid literal" in report
    assert "line" in report


def in_worker(transform, tmp_path):
    """The error that a chain with this transform ends with in a data loader's worker process."""
    loader = DataLoader(Dataset([{"image": str(tmp_path / "a.mhd")}], transform), num_workers=1)
    with pytest.raises((RuntimeError, ValueError)) as error:
        next(iter(loader))
    return error.value


def test_the_sentence_is_found_in_the_traceback_of_a_worker(tmp_path):
    reader = LoadImaged("image", reader="lora_ext.images.VolumeReader")
    for transform in (Compose([reader]), reader):
        error = in_worker(transform, tmp_path)
        assert "Traceback" in str(error)
        assert str(user_error(error)) == f"{tmp_path / 'a.mhd'}: found no such file"


def test_errors_of_other_packages_in_a_worker_are_left_alone(tmp_path):
    assert user_error(in_worker(Compose([Lambdad("image", int)]), tmp_path)) is None
