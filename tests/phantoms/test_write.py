"""The phantom task on disk: arguments, layout, determinism, refusals, several processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lora_ext.phantoms import ensure_phantoms, write_phantoms
from lora_ext.phantoms.write import check_count, is_done, parse_size


@pytest.mark.parametrize(
    "given", ["128,128,48", "(128, 128, 48)", " 128, 128,48 ", (128, 128, 48), [128, 128, 48]]
)
def test_size_is_read_from_a_string_or_a_sequence(given):
    assert parse_size(given) == (128, 128, 48)


@pytest.mark.parametrize(
    "given",
    [
        *("128,128", "128x128x48", "", "a,b,c", "64,64,-32", "64,64,32.0"),
        *((64, 64, 15), (64, 64), (64.0, 64, 64), (True, 64, 64), {64, 65, 66}, 64, None),
    ],
)
def test_bad_sizes_are_refused_with_what_was_given_and_what_is_allowed(given):
    with pytest.raises(ValueError, match="three integers of at least 16") as caught:
        parse_size(given)
    assert repr(given) in str(caught.value)


def test_the_least_count_is_allowed_and_one_less_is_not():
    assert check_count("cases", 1, 1) == 1
    with pytest.raises(ValueError, match="cases: expected an integer of at least 1, got 0"):
        check_count("cases", 0, 1)


def test_a_new_or_an_empty_folder_is_free(tmp_path):
    assert not is_done(tmp_path / "new", {})
    assert not is_done(tmp_path, {})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"phantom": {}}', "not json"])
def test_a_folder_with_other_things_is_refused_by_name(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="got one with other files") as caught:
        is_done(tmp_path, {"seed": 0})
    assert str(tmp_path) in str(caught.value)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="got a file"):
        is_done(tmp_path / "out", {})


def test_the_same_phantom_is_done_only_while_its_files_are_there(tmp_path):
    listing = {"training": [], "test": ["./imagesTs/a.nii.gz"], "phantom": {"seed": 0}}
    (tmp_path / "dataset.json").write_text(json.dumps(listing), encoding="utf-8")
    with pytest.raises(ValueError, match=r"without \./imagesTs/a\.nii\.gz"):
        is_done(tmp_path, {"seed": 0})
    (tmp_path / "imagesTs").mkdir()
    (tmp_path / "imagesTs" / "a.nii.gz").write_bytes(b"")
    assert is_done(tmp_path, {"seed": 0})


SIZE = (32, 32, 16)
CHANNELS = {"brats": ["FLAIR", "T1w", "t1gd", "T2w"], "prostatex": ["T2", "ADC"]}
SPACING = {"brats": (1.0, 1.0, 1.0), "prostatex": (0.6, 0.6, 1.5)}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture(scope="module", params=["brats", "prostatex"])
def phantom(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("phantom") / request.param
    return request.param, write_phantoms(request.param, out, cases=3, size=SIZE)


def test_same_call_writes_the_same_bytes(phantom, tmp_path):
    task, folder = phantom
    again = write_phantoms(task, tmp_path / "elsewhere", cases=3, size=SIZE)
    assert contents(again) == contents(folder)


def test_another_process_writes_the_same_bytes(tmp_path):
    here = write_phantoms("brats", tmp_path / "here", cases=1, size=SIZE)
    code = (
        f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r};"
        "from lora_ext.phantoms import write_phantoms;"
        "write_phantoms('brats', sys.argv[1], cases=1, size='32,32,16')"
    )
    there = tmp_path / "there"
    subprocess.run([sys.executable, "-c", code, str(there)], check=True, capture_output=True)
    assert contents(there) == contents(here)


def test_a_case_does_not_depend_on_how_many_there_are(phantom, tmp_path):
    task, folder = phantom
    more = write_phantoms(task, tmp_path / "more", cases=5, size=SIZE, test_cases=0)
    for kind in ("imagesTr", "labelsTr"):
        for path in (folder / kind).iterdir():
            assert (more / kind / path.name).read_bytes() == path.read_bytes()
    for path in (folder / "imagesTs").iterdir():
        assert (more / "imagesTr" / path.name).read_bytes() == path.read_bytes()


def test_another_seed_gives_other_images_and_labels(phantom, tmp_path):
    task, folder = phantom
    other = write_phantoms(task, tmp_path / "other", cases=3, size=SIZE, seed=1)
    for kind in ("imagesTr", "labelsTr", "imagesTs"):
        for path in (folder / kind).iterdir():
            assert not np.array_equal(voxels(other / kind / path.name), voxels(path))


def test_no_two_cases_are_alike(phantom):
    _, folder = phantom
    images = [voxels(path) for path in folder.glob("images*/*.nii.gz")]
    assert len(images) == 5
    assert len({image.tobytes() for image in images}) == 5


def test_dataset_json_describes_an_msd_task(phantom):
    task, folder = phantom
    listing = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert listing["tensorImageSize"] == "4D"
    assert [listing["modality"][str(c)] for c in range(len(listing["modality"]))] == CHANNELS[task]
    assert listing["labels"]["0"] == "background"
    assert (listing["numTraining"], listing["numTest"]) == (3, 2)
    assert {"name", "description", "licence"} <= set(listing)


def test_brats_labels_are_those_of_task01(tmp_path):
    folder = write_phantoms("brats", tmp_path / "b", cases=1, size=(16, 16, 16), test_cases=0)
    labels = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["labels"]
    assert labels == {
        "0": "background",
        "1": "edema",
        "2": "non-enhancing tumor",
        "3": "enhancing tumour",
    }


def test_prostate_labels_are_those_of_task05(tmp_path):
    folder = write_phantoms("prostatex", tmp_path / "p", cases=1, size=(16, 16, 16), test_cases=0)
    labels = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["labels"]
    assert labels == {"0": "background", "1": "PZ", "2": "TZ"}


def test_every_file_is_listed_and_every_listed_file_is_there(phantom):
    _, folder = phantom
    listing = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    listed = [*listing["test"], *(f for pair in listing["training"] for f in pair.values())]
    found = {str(p.relative_to(folder)) for p in folder.rglob("*.nii.gz")}
    assert sorted(str(Path(f)) for f in listed) == sorted(found)
    assert all(Path(p["image"]).name == Path(p["label"]).name for p in listing["training"])


def test_test_cases_continue_the_numbering_and_are_not_in_training(phantom):
    task, folder = phantom
    listing = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert [Path(f).name for f in listing["test"]] == [
        f"{task}_0004.nii.gz",
        f"{task}_0005.nii.gz",
    ]
    training = {Path(pair["image"]).name for pair in listing["training"]}
    assert training == {f"{task}_000{i}.nii.gz" for i in (1, 2, 3)}


def test_nibabel_reads_type_shape_spacing_and_orientation(phantom):
    task, folder = phantom
    image = nib.load(folder / "imagesTr" / f"{task}_0001.nii.gz")
    label = nib.load(folder / "labelsTr" / f"{task}_0001.nii.gz")
    assert image.shape == (*SIZE, len(CHANNELS[task]))
    assert label.shape == SIZE
    assert image.get_data_dtype() == np.int16
    assert label.get_data_dtype() == np.uint8
    assert image.header.get_zooms()[:3] == pytest.approx(SPACING[task])
    assert image.header.get_xyzt_units()[0] == "mm"
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert np.array_equal(image.affine, label.affine)
    assert image.affine[1, 3] == pytest.approx(SPACING[task][1] * (SIZE[1] - 1))
    assert image.dataobj.slope == 1


def test_air_is_zero_and_tissue_is_not(phantom):
    task, folder = phantom
    image = voxels(folder / "imagesTr" / f"{task}_0001.nii.gz")
    label = voxels(folder / "labelsTr" / f"{task}_0001.nii.gz")
    assert image.min() == 0
    assert np.all(image[label > 0] > 0)
    assert np.all((image == 0).any(-1) == (image == 0).all(-1))


def test_a_second_call_writes_nothing(phantom):
    task, folder = phantom
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_phantoms(task, folder, cases=3, size="32,32,16") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_progress_goes_to_stderr_only(tmp_path, capsys):
    write_phantoms("brats", tmp_path / "out", cases=1, size=(16, 16, 16), test_cases=0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "brats phantom" in captured.err


def test_parents_are_made_an_empty_folder_is_used_and_nothing_else_is_left(tmp_path):
    (tmp_path / "deep" / "out").mkdir(parents=True)
    for out in (tmp_path / "deep" / "out", tmp_path / "deeper" / "still" / "out"):
        folder = write_phantoms("brats", str(out), cases=1, size=[16, 16, 16], test_cases=0)
        assert folder == out.resolve()
        assert [p.name for p in folder.parent.iterdir()] == ["out"]
        assert (folder / "imagesTs").is_dir()


def test_a_failed_call_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(sys.modules[write_phantoms.__module__], "_save_nifti", fail)
    with pytest.raises(OSError, match="disk full"):
        write_phantoms("brats", tmp_path / "out", cases=1, size=(16, 16, 16))
    assert list(tmp_path.iterdir()) == []


def test_of_two_calls_at_once_the_first_to_finish_gives_the_folder(tmp_path, monkeypatch):
    module, call = sys.modules[write_phantoms.__module__], {"cases": 1, "size": (16, 16, 16)}
    write_task, calls = module._write_task, []

    def slowly(*args):
        write_task(*args)
        calls.append(args)
        if len(calls) == 1:  # another call comes and goes before this one is done
            write_phantoms("brats", tmp_path / "out", **call)
            times.update({p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")})

    times: dict[Path, int] = {}
    monkeypatch.setattr(module, "_write_task", slowly)
    assert write_phantoms("brats", tmp_path / "out", **call) == tmp_path / "out"
    assert len(calls) == 2
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == times
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"cases": 2}, {"size": (16, 16, 17)}])
def test_another_phantom_is_not_overwritten(tmp_path, change):
    call = {"cases": 1, "size": (16, 16, 16), "test_cases": 0}
    folder = write_phantoms("brats", tmp_path / "out", **call)
    before = contents(folder)
    with pytest.raises(ValueError, match=r"out: expected .*got a phantom of .*'seed': 0"):
        write_phantoms("brats", folder, **{**call, **change})
    assert contents(folder) == before


def test_unknown_task_is_refused_with_the_names_allowed(tmp_path):
    with pytest.raises(ValueError, match=r"task: expected one of brats, prostatex, got 'liver'"):
        write_phantoms("liver", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("cases", 0), ("cases", 1.5), ("cases", True), ("seed", -1), ("seed", "a")),
        *(("test_cases", -1), ("size", (9, 9)), ("size", "64,64,15")),
    ],
)
def test_bad_arguments_are_refused_by_name_and_value(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected ") as caught:
        write_phantoms("brats", tmp_path / "out", **{name: value})
    assert repr(value) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


TWO = """
import json, logging, sys
from pathlib import Path
import ignite.distributed as idist
from lora_ext.data import fold_cases
from lora_ext.phantoms import ensure_phantoms

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
read = []
logging.getLogger("lora_ext.data.checks").addFilter(lambda entry: not read.append(entry.msg))
with idist.Parallel(backend="gloo"):
    ensure_phantoms("phantom_prostatex")
    items = fold_cases("phantom_prostatex", ["T2"], {"PZ": [1]}, fold=0, num_folds=8, split_seed=0,
                       record="eval/checked_cases.json")
    report = json.dumps([len(read), len(items["training"])])
    Path(f"{idist.get_rank()}.json").write_text(report, encoding="utf-8")
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
    assert (tmp_path / "0.json").read_text(encoding="utf-8") == "[1, 21]"
    assert (tmp_path / "1.json").read_text(encoding="utf-8") == "[0, 21]"
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
