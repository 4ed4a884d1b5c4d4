import subprocess
import sys

import pytest

from lora_ext.phantoms import ensure_phantoms, write_phantoms

TWO = """
import json, logging, sys
from pathlib import Path
import ignite.distributed as idist
from lora_ext.training import processes
from lora_ext.data import fold_cases
from lora_ext.phantoms import ensure_phantoms

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
processes.join("cpu")
logging.disable(logging.NOTSET)  # to hear what rank 1 does as well
read = []
logging.getLogger("lora_ext.data.checks").addFilter(lambda entry: not read.append(entry.msg))
ensure_phantoms("phantom_prostatex")
items = fold_cases("phantom_prostatex", ["T2"], {"PZ": [1]}, fold=0, num_folds=8, split_seed=0,
                   record="eval/checked_cases.json")
Path(f"{idist.get_rank()}.json").write_text(json.dumps([len(read), len(items["training"])]))
processes.leave()
"""


def test_missing_default_folder_is_filled_and_any_other_left_alone(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("lora_ext.phantoms.write.write_phantoms", lambda *a: asked.append(a))
    assert ensure_phantoms(tmp_path / "phantom_brats") == str(tmp_path / "phantom_brats")
    ensure_phantoms(tmp_path / "Task01_BrainTumour")
    assert asked == [("brats", tmp_path / "phantom_brats")]


def test_folder_that_is_there_is_not_touched(tmp_path):
    (tmp_path / "phantom_brats").mkdir()
    ensure_phantoms(tmp_path / "phantom_brats")
    assert list((tmp_path / "phantom_brats").iterdir()) == []


@pytest.mark.slow
def test_rank_0_writes_and_reads_the_data_and_the_others_take_it(in_two_processes, tmp_path):
    done = in_two_processes(TWO)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "0.json").read_text() == "[1, 21]"
    assert (tmp_path / "1.json").read_text() == "[0, 21]"
    assert done.stdout.count("writing 24 prostatex phantoms") == 1
    assert [path.name for path in (tmp_path / "eval").iterdir()] == ["checked_cases.json"]


AT_ONCE = """
import sys, time
from pathlib import Path
from lora_ext.phantoms import write_phantoms

Path(f"ready{sys.argv[1]}").touch()
while len(list(Path().glob("ready*"))) < 2:
    time.sleep(0.01)
print(write_phantoms("brats", "at_once", cases=6, size=(32, 32, 32)))
"""


@pytest.mark.slow
def test_two_runs_may_want_the_same_missing_phantoms_at_once(tmp_path):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", AT_ONCE, str(number)],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        )
        for number in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [text for text, _ in said] == [f"{tmp_path / 'at_once'}\n"] * 2
    alone = write_phantoms("brats", tmp_path / "alone", cases=6, size=(32, 32, 32))
    assert contents(tmp_path / "at_once") == contents(alone)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"alone", "at_once", "ready0", "ready1"}


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}
