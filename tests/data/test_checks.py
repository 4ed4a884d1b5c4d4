"""Checks before training: every bad file is named, and a file that passed is not read again."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from lora_ext.data import checks
from lora_ext.data.checks import check_cases
from lora_ext.data.task import read_task
from lora_ext.images.reader import open_image

NAMES = ("FLAIR", "t1gd")
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (7, 6, 5)
ENDINGS = [".nrrd", ".nhdr", ".mha", ".mhd"]


def save(path, voxels, affine=LPS):
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return str(path)


def image(channels=2):
    shape = (*SHAPE, channels) if channels else SHAPE
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def label(value=1):
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[1, 2, 3] = value
    return voxels


def integers():
    return np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16)


@pytest.fixture
def item(tmp_path):
    return {
        "case": "a",
        "image": save(tmp_path / "a.nii.gz", image()),
        "label": save(tmp_path / "a_label.nii.gz", label()),
        "channels": [0],
    }


def check(*items, names=NAMES, values=(0, 1, 2), record=None):
    check_cases(items, channel_names=names, label_values=values, record=record)


def test_good_cases_pass_with_and_without_a_label_and_with_a_single_3d_channel(item, tmp_path):
    check(item, {"case": "b", "image": item["image"]})
    check({"case": "c", "image": save(tmp_path / "c.nii.gz", image(0))}, names=("T2",))
    files = [save(tmp_path / f"d_{name}.nii.gz", image(0)) for name in NAMES]
    check({"case": "d", "image": files, "label": item["label"]})


def test_a_missing_file_is_named(item):
    for key in ("label", "image"):
        os.unlink(item[key])
        with pytest.raises(ValueError, match=f"{item[key]}: found no such file; case a"):
            check(item)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".nii.gz", lambda data: data[: len(data) // 2]),
        (".nii.gz", lambda data: data[:40]),
        (".nii.gz", lambda data: b""),
        (".nii.gz", lambda data: b"not a gzip file" * 99),
        (".nii.gz", lambda data: data[:300] + bytes([data[300] ^ 255]) + data[301:]),
        (".nii", lambda data: data[: len(data) // 2]),
        (".nii", lambda data: data[:100]),
    ],
)
def test_a_damaged_file_is_named_and_called_damaged(tmp_path, suffix, damage):
    path = tmp_path / f"a{suffix}"
    save(path, image())
    path.write_bytes(damage(path.read_bytes()))
    words = rf"^{re.escape(str(path))}: .*got a damaged or truncated one \([^\n]*$"
    with pytest.raises(ValueError, match=words):
        check({"case": "a", "image": str(path)})


@pytest.mark.parametrize(("channels", "found"), [(3, 3), (1, 1), (0, 1)])
def test_another_number_of_channels_is_named_with_the_channels_allowed(tmp_path, channels, found):
    path = save(tmp_path / "a.nii.gz", image(channels))
    with pytest.raises(ValueError, match=rf"expected 2 channels \(FLAIR, t1gd\), got {found}"):
        check({"case": "a", "image": path})


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((6, 5), np.float32, "expected 3 dimensions, or 4"),
        ((6, 5, 4, 2, 2), np.float32, "expected 3 dimensions, or 4"),
        ((1, 1, 1), np.float32, r"expected a volume, got the shape \(1, 1, 1\)"),
        ((6, 5, 4, 2), np.complex64, "expected voxels of real numbers, got complex64"),
    ],
)
def test_only_volumes_of_real_numbers_are_allowed(tmp_path, shape, dtype, words):
    path = save(tmp_path / "a.nii.gz", np.zeros(shape, dtype))
    with pytest.raises(ValueError, match=words):
        check({"case": "a", "image": path})


def test_non_finite_voxels_are_counted_by_channel(tmp_path):
    voxels = image()
    voxels[0, 0, :3, 1] = (np.nan, np.inf, -np.inf)
    path = save(tmp_path / "a.nii.gz", voxels)
    words = r"expected finite voxels, got non-finite ones, 3 in channel 1 \(t1gd\)"
    with pytest.raises(ValueError, match=words):
        check({"case": "a", "image": path})


def test_a_non_finite_voxel_in_a_channel_file_names_that_file(tmp_path):
    bad = image(0)
    bad[0, 0, 0] = np.nan
    files = [save(tmp_path / "FLAIR.nii.gz", image(0)), save(tmp_path / "t1gd.nii.gz", bad)]
    with pytest.raises(ValueError, match=r"t1gd\.nii\.gz: .* 1 in channel 0 \(t1gd\)"):
        check({"case": "a", "image": files})


@pytest.mark.parametrize(
    ("voxels", "affine", "words"),
    [
        (label()[:-1], LPS, r"expected the shape .*\(7, 6, 5\) at 1x1x1 mm, got \(6, 6, 5\)"),
        (label(), np.diag([1.0, -1.0, 1.0, 1.0]), "expected the affine"),
    ],
)
def test_a_label_on_another_grid_than_its_image_is_refused(item, tmp_path, voxels, affine, words):
    item["label"] = save(tmp_path / "a_label.nii.gz", voxels, affine)
    with pytest.raises(ValueError, match=words):
        check(item)


def test_an_image_and_a_label_may_differ_by_a_tenth_of_a_voxel_only(item, tmp_path):
    item["label"] = save(tmp_path / "a_label.nii.gz", label(), LPS + 0.09 * np.eye(4, k=3))
    check(item)
    item["label"] = save(tmp_path / "a_label.nii.gz", label(), LPS + 0.46 * np.eye(4, k=3))
    with pytest.raises(ValueError, match=r"a_label\.nii\.gz: expected the affine .*0\.46 voxels"):
        check(item)


@pytest.mark.parametrize(
    ("voxels", "affine", "words"),
    [(image(0)[1:], LPS, "expected the shape"), (image(0), np.eye(4), "expected the affine")],
)
def test_channel_files_of_one_case_must_share_a_grid(tmp_path, voxels, affine, words):
    first = save(tmp_path / "a_FLAIR.nii.gz", image(0))
    files = [first, save(tmp_path / "a_t1gd.nii.gz", voxels, affine)]
    with pytest.raises(ValueError, match=rf"a_t1gd\.nii\.gz: {words} .*a_FLAIR\.nii\.gz"):
        check({"case": "a", "image": files})
    with pytest.raises(ValueError, match=r"expected 2 files \(FLAIR, t1gd\) for case a, got 3"):
        check({"case": "a", "image": [first] * 3})


STORED = {  # by other programs
    "with rounding errors": lambda v: v * np.float32(1.0000001),
    "with the noise of a scale factor": lambda v: v * 0.9996,
    "as double": lambda v: v.astype(np.float64) + 1e-9,
}


@pytest.mark.parametrize("stored", STORED)
def test_labels_that_all_but_are_whole_numbers_are_these(item, tmp_path, stored):
    path = save(tmp_path / "a_label.nii.gz", STORED[stored](label(2).astype(np.float32)))
    check({**item, "label": path})
    np.testing.assert_array_equal(open_image(path).read(), label(2))


def test_an_integer_label_with_a_scale_factor_is_read_as_its_labels(item, tmp_path):
    save(tmp_path / "a_label.nii", (label(2).astype(np.int16)) * 100)
    content = bytearray((tmp_path / "a_label.nii").read_bytes())
    content[112:116] = np.float32(0.0099999).tobytes()  # scl_slope
    (tmp_path / "a_label.nii").write_bytes(content)
    check({**item, "label": str(tmp_path / "a_label.nii")})


def test_a_task_of_which_no_case_is_labelled_is_refused_also_from_the_record(item, tmp_path):
    empty = {**item, "case": "b", "label": save(tmp_path / "b_label.nii.gz", label(0))}
    check(item, empty, record=tmp_path / "checked.json")
    for record in (None, tmp_path / "checked.json"):
        with pytest.raises(ValueError, match=r"b_label\.nii\.gz: .* got none in 1 label map;"):
            check(empty, record=record)


def test_an_image_that_resampling_would_blow_up_is_refused_also_from_the_record(item, tmp_path):
    coarse = np.diag([40.0, 40.0, 40.0, 1.0])
    path = save(tmp_path / "b.nii.gz", np.ones((64, 64, 64, 2), np.float32), coarse)
    record, cases = tmp_path / "checked.json", [{"case": "b", "image": path}]
    check_cases(cases, channel_names=NAMES, spacing=[40] * 3, record=record)
    words = r"b\.nii\.gz: .* got 64x64x64 voxels of 40x40x40 mm, .* 2560x2560x2560 .* --spacing"
    for known in (None, record):
        with pytest.raises(ValueError, match=words):
            check_cases(cases, channel_names=NAMES, spacing=[1] * 3, record=known)


def test_two_affines_that_differ_are_told_once(item, tmp_path, caplog):
    image = nib.load(item["image"])
    image.set_qform(LPS + 2 * np.eye(4, k=3), 1)
    image.set_sform(LPS, 1)
    nib.save(image, tmp_path / "b.nii.gz")
    check({**item, "case": "b", "image": str(tmp_path / "b.nii.gz")}, item)
    told = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage().partition(": ")[2] for record in told] == [
        "sform and qform differ by up to 2 mm; the sform is used, and a viewer that takes the "
        "qform shows the image elsewhere"
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (4.0, "got 4 in 1 voxel"),
        (1.5, "got 1.5 in 1 voxel"),
        (1.0021, r"got 1\.0021 in 1 voxel"),
        (np.nan, "got nan in 1 voxel"),
        (-1.0, "got -1 in 1 voxel"),
    ],
)
def test_label_values_outside_the_map_are_listed(item, tmp_path, value, words):
    voxels = label().astype(np.float32)
    voxels[0, 0, 0] = value
    item["label"] = save(tmp_path / "a_label.nii.gz", voxels)
    with pytest.raises(ValueError, match=f"expected every label to be one of 0, 1, 2, {words}$"):
        check(item)


def test_without_a_label_map_any_integer_is_a_label(item, tmp_path):
    item["label"] = save(tmp_path / "a_label.nii.gz", label(9))
    check(item, values=None)
    item["label"] = save(tmp_path / "a_label.nii.gz", label() * np.float32(0.5))
    with pytest.raises(
        ValueError, match=r"expected every label to be an integer, got 0\.5 in 1 voxel$"
    ):
        check(item, values=None)


def test_the_first_bad_case_by_name_is_the_one_reported(tmp_path):
    items = [{"case": n, "image": save(tmp_path / f"{n}.nii.gz", image(3))} for n in "cab"]
    with pytest.raises(ValueError, match=r"a\.nii\.gz"):
        check(*items)


def recorded(record):
    passed = json.loads(record.read_text(encoding="utf-8"))["passed"]
    return [case["image"] for case in passed.values()]


@pytest.fixture
def reads(monkeypatch):
    seen = []

    def open_and_listen(path):
        image = open_image(path)
        return replace(image, read=lambda: (seen.append(path), image.read())[1])

    monkeypatch.setattr(checks, "open_image", open_and_listen)
    return seen


def test_a_recorded_case_is_not_read_again(item, tmp_path, reads):
    record = tmp_path / "run" / "checked.json"
    check(item, record=record)
    assert sorted(reads) == [item["image"], item["label"]]
    reads.clear()
    check(item, record=record)
    assert reads == []
    assert os.listdir(record.parent) == ["checked.json"]
    check(item)
    assert len(reads) == 2


def test_a_changed_file_is_checked_again(item, tmp_path):
    record = tmp_path / "checked.json"
    item["label"] = save(tmp_path / "a_label.nii", label())
    check(item, record=record)
    stat = os.stat(item["label"])
    save(item["label"], label(7))  # of the same size
    os.utime(item["label"], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(ValueError, match="got 7"):
        check(item, record=record)


def test_other_allowed_values_or_channels_are_checked_again(item, tmp_path):
    record = tmp_path / "checked.json"
    check(item, record=record)
    with pytest.raises(ValueError, match=r"expected every label to be one of 0, got 1 in 1 voxel$"):
        check(item, values=[0], record=record)
    with pytest.raises(ValueError, match="expected 1 channel"):
        check(item, names=["T2"], record=record)


def test_a_case_that_failed_is_not_recorded_but_those_before_it_are(item, tmp_path):
    record = tmp_path / "checked.json"
    bad = {"case": "b", "image": save(tmp_path / "b.nii.gz", image(3))}
    with pytest.raises(ValueError, match="got 3"):
        check(item, bad, record=record)
    assert recorded(record) == [item["image"]]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"passed": 3}', '{"passed": {"a": "b"}}', "\udcff"]
)
def test_a_broken_record_is_ignored_and_replaced(item, tmp_path, reads, content):
    record = tmp_path / "checked.json"
    record.write_bytes(content.encode(errors="surrogateescape"))
    check(item, record=record)
    check(item, record=record)
    assert len(reads) == 2


def test_a_record_that_cannot_be_written_does_not_stop_the_run(item, tmp_path, caplog):
    (tmp_path / "file").touch()
    check(item, record=tmp_path / "file" / "checked.json")
    assert "could not be recorded" in caplog.text


def test_nothing_is_printed_where_stderr_is_no_terminal(tmp_path, capsys):
    check(*({"case": c, "image": save(tmp_path / f"{c}.nii", image())} for c in "abcdefghi"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("ending", ENDINGS)
def test_good_cases_of_any_format_pass(tmp_path, write_image, oblique, ending):
    path = write_image(tmp_path / f"a{ending}", image(), oblique)
    label_map = write_image(tmp_path / f"label{ending}", label(), oblique)
    check({"case": "a", "image": path, "label": label_map})
    series = write_image(tmp_path / "series", integers(), oblique)
    one = write_image(tmp_path / f"one{ending}", image(0), oblique)
    check({"case": "b", "image": [series, one], "label": label_map})


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_fault_is_named(tmp_path, write_image, oblique, ending):
    bad = image()
    bad[0, 0, :3, 1] = (np.nan, np.inf, -np.inf)
    path = write_image(tmp_path / f"a{ending}", bad, oblique)
    with pytest.raises(
        ValueError, match=rf"a{ending}: .* non-finite ones, 3 in channel 1 \(t1gd\)"
    ):
        check({"case": "a", "image": path})
    with pytest.raises(ValueError, match=rf"a{ending}: expected 1 channel \(t1gd\), got 2"):
        check({"case": "a", "image": path}, names=["t1gd"])
    path = write_image(tmp_path / f"b{ending}", image(), oblique)
    wrong = write_image(tmp_path / f"label{ending}", label(7), oblique)
    with pytest.raises(
        ValueError,
        match=rf"label{ending}: expected every label to be one of 0, 1, 2, got 7 in 1 voxel$",
    ):
        check({"case": "b", "image": path, "label": wrong})
    moved = write_image(tmp_path / f"moved{ending}", label(), oblique + np.eye(4, k=3))
    with pytest.raises(ValueError, match=rf"moved{ending}: expected the affine of .*b{ending}"):
        check({"case": "b", "image": path, "label": moved})


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
def test_a_missing_data_file_is_named(tmp_path, write_image, oblique, ending):
    path = write_image(tmp_path / f"a{ending}", image(), oblique)
    (tmp_path / "a.raw").unlink()
    with pytest.raises(ValueError, match=r"a\.raw: found no such file; case a needs it"):
        check({"case": "a", "image": path})


def test_channels_on_different_grids_name_both_files_and_grids(tmp_path, write_image, oblique):
    files = [
        write_image(tmp_path / "a_FLAIR.mha", image(0), oblique),
        write_image(tmp_path / "a_t1gd", integers()[:, :, :4], oblique),
    ]
    words = (
        r"a_t1gd: expected the shape of .*a_FLAIR\.mha, \(7, 6, 5\) at 1\.5x1\.25x4 mm, "
        r"got \(7, 6, 4\) at 1\.5x1\.25x4 mm"
    )
    with pytest.raises(ValueError, match=words):
        check({"case": "a", "image": files})


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mhd", "a"])
def test_the_record_knows_every_file_of_an_image(tmp_path, write_image, oblique, name):
    """A passed case is read again when its data file or one of its slices has changed."""
    record = tmp_path / "checked.json"
    item = {"case": "a", "image": write_image(tmp_path / name, integers(), oblique)}
    check(item, names=["T2"], record=record)
    assert recorded(record) == [item["image"]]
    part = {"a.nrrd": "a.nrrd", "a": "a/I003"}.get(name, "a.raw")
    content, stat = (tmp_path / part).read_bytes(), os.stat(tmp_path / part)
    (tmp_path / part).write_bytes(content[:-9])
    os.utime(tmp_path / part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(ValueError, match=r"damaged or truncated|no readable DICOM"):
        check(item, names=["T2"], record=record)
    if name != "a.nrrd":  # damage that leaves size and time: the record is believed
        (tmp_path / part).write_bytes(bytes(len(content)))
        os.utime(tmp_path / part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        check(item, names=["T2"], record=record)


def test_a_task_may_list_files_of_any_format(tmp_path, write_image, oblique):
    """NRRD and MetaImage take the place of NIfTI in a Decathlon task's dataset.json."""
    training = []
    for i, (ending, other) in enumerate(
        [(".nrrd", ".mha"), (".nii.gz", ".nrrd"), (".mhd", ".nii")]
    ):
        write_image(tmp_path / f"imagesTr/a{i}{ending}", image(), oblique)
        write_image(tmp_path / f"labelsTr/a{i}{other}", label(), oblique)
        training.append({"image": f"imagesTr/a{i}{ending}", "label": f"labelsTr/a{i}{other}"})
    content = {
        "modality": {"0": "FLAIR", "1": "t1gd"},
        "labels": {"0": "background", "1": "edema"},
        "training": training,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    cases = read_task(tmp_path).training
    assert [case.name for case in cases] == ["a0", "a1", "a2"]
    check(*({"case": c.name, "image": str(c.image), "label": str(c.label)} for c in cases))


@pytest.mark.parametrize(("free", "level"), [(10**9, "INFO"), (10**3, "WARNING")])
def test_memory_of_the_cache_is_said_before_it_is_taken(item, monkeypatch, caplog, free, level):
    """Half of a case, two channels and a label map, at twice the resolution along H."""
    monkeypatch.setattr(checks, "available_memory", lambda: free)
    with caplog.at_level("INFO", "lora_ext"):
        check_cases([item], channel_names=NAMES, spacing=[0.5, 1, 1], cache_rate=0.5)
    (told,) = [record for record in caplog.records if "--cache_rate" in record.message]
    assert told.levelname == level
    assert f"keeps up to {0.5 * 14 * 6 * 5 * 3 * 4 / 1e9:.4g} GB of images" in told.message
