import logging

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged

from lora_ext.data import SelectChannelsd, all_volumes, count_volumes, fold_cases, fold_volumes
from lora_ext.phantoms import write_phantoms

SPLIT = {"fold": 1, "num_folds": 4, "split_seed": 3}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes") / "brats"
    return write_phantoms("brats", folder, cases=8, size=(32, 32, 16), test_cases=2)


def save(path, shape=(8, 8, 8), value=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.full(shape, value, np.float32), np.eye(4)), path)


def test_every_channel_of_a_task_is_a_volume(task):
    sides = fold_volumes(task, **SPLIT)
    assert len(sides["training"]) == 6 * 4
    assert len(sides["validation"]) == 2 * 4
    assert {tuple(item["channels"]) for item in sides["training"]} == {(0,), (1,), (2,), (3,)}
    names = [item["case"] for items in sides.values() for item in items]
    assert len(set(names)) == 32
    assert "brats_0001_t1gd" in names


def test_held_out_are_the_segmentations_validation_cases(task):
    """The same fold never shows the encoder a validation or a test case."""
    cases = fold_cases(task, ["FLAIR"], {"WT": [1, 2, 3]}, **SPLIT)
    volumes = fold_volumes(task, **SPLIT)
    for side in ("training", "validation"):
        assert {v["image"] for v in volumes[side]} == {c["image"] for c in cases[side]}
    assert not any("imagesTs" in item["image"] for item in all_volumes(task))


@pytest.mark.parametrize(
    ("intensity", "kinds"),
    [
        ("auto", ["ct", "mr", "pet", "by values"]),
        ("pet", ["pet"] * 4),
        ({"t1W": "ct"}, ["ct", "ct", "pet", "by values"]),
    ],
)
def test_volumes_are_counted_by_modality_with_the_rule_they_are_normalised_by(intensity, kinds):
    names = ["T1w", None, "CT", "T1w", "FDG-PET"]
    items = [{"case": "a"} | ({"modality": name} if name else {}) for name in names]
    found = count_volumes(items, intensity)
    assert {k: v["volumes"] for k, v in found.items()} == {
        "CT": 1, "FDG-PET": 1, "T1w": 2, "unnamed": 1,
    }  # fmt: skip
    assert [found[name]["intensity"] for name in ("CT", "T1w", "FDG-PET", "unnamed")] == kinds


def test_patients_of_a_folder_stay_together(tmp_path):
    for patient in range(4):
        for series in ("t1", "t2/extra"):
            save(tmp_path / f"sub-{patient}" / f"{series}.nii.gz")
    save(tmp_path / "alone.nii")
    save(tmp_path / "four.nii.gz", (8, 8, 8, 3))
    sides = fold_volumes(tmp_path, fold=0, num_folds=3, split_seed=0)
    assert len(all_volumes(tmp_path)) == 4 * 2 + 1 + 3
    patients = {
        side: {item["case"].partition("_")[0] for item in items} for side, items in sides.items()
    }
    assert not patients["training"] & patients["validation"]
    assert {"sub-0_t2_extra", "alone", "four_2"} <= {i["case"] for i in all_volumes(tmp_path)}


def test_volumes_may_come_in_any_format(tmp_path, write_image, oblique):
    voxels = np.arange(2 * 210, dtype=np.int16).reshape(7, 6, 5, 2)
    for name in ("a.nrrd", "b.mha", "c/one.nhdr", "c/two.mhd", "d.nii.gz"):
        write_image(tmp_path / name, voxels, oblique)
    items = all_volumes(tmp_path)
    names = ["a", "b", "c_one", "c_two", "d"]
    assert [item["case"] for item in items] == [f"{n}_{i}" for n in names for i in (0, 1)]
    load = LoadImaged("image", reader="lora_ext.images.VolumeReader", ensure_channel_first=True)
    chain = Compose([load, SelectChannelsd("image", num_channels=1)])
    for item in items:
        np.testing.assert_array_equal(chain(item)["image"][0], voxels[..., item["channels"][0]])


def test_folder_of_tasks_takes_their_images_and_no_label(tmp_path):
    folder = tmp_path / "tasks"
    write_phantoms("prostatex", folder / "prostate", cases=4, size=(32, 32, 16), test_cases=1)
    save(folder / "loose_a.nii.gz")
    for n in range(3):
        save(folder / f"p{n}.nii.gz")
    volumes = all_volumes(folder)
    assert len(volumes) == 4 * 2 + 4
    assert not any("labelsTr" in item["image"] for item in volumes)
    held_out = fold_volumes(folder, **SPLIT)["validation"]
    assert len(held_out) == 2 + 1  # one case of the task, one loose file


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"found no image; .* \.nii\.gz, \.nii, \.hdr, \.nrrd"):
        all_volumes(tmp_path)


def test_too_few_patients_are_named(tmp_path):
    save(tmp_path / "a.nii.gz")
    save(tmp_path / "b.nii.gz")
    with pytest.raises(
        ValueError,
        match=r"expected at least as many patients as --num_folds, 4, got 2 \(a.nii.gz, b.nii.gz\)",
    ):
        fold_volumes(tmp_path, **SPLIT)


def test_damaged_file_is_named(tmp_path):
    save(tmp_path / "good.nii.gz")
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad\.nii\.gz"):
        all_volumes(tmp_path)


def test_voxel_that_is_not_finite_is_named(tmp_path):
    save(tmp_path / "bad.nii.gz", value=np.nan)
    with pytest.raises(ValueError, match="non-finite"):
        all_volumes(tmp_path)


def test_hidden_files_and_label_maps_are_left_out_and_links_followed(tmp_path, caplog):
    data, store = tmp_path / "data", tmp_path / "store"
    save(store / "one/t1.nii.gz")
    random = np.random.default_rng(0).random((8, 8, 8), dtype=np.float32)
    labels = np.random.default_rng(0).integers(0, 5, (8, 8, 8)).astype(np.int16)
    for name, voxels in {
        "a_t1.nii.gz": random,
        "a_seg.nii.gz": labels,
        "b/Mask.nii": labels.astype(np.float32),
        "b/labelsTr/x.nii": labels,
        "b/masked_t1.nii": random,  # named so, and none
        "c_counts.nii": labels,  # none by its name
    }.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), data / name)
    (data / "linked").symlink_to(store)
    (data / "._a_t1.nii.gz").write_bytes(b"macOS")
    with caplog.at_level(logging.INFO):
        cases = [item["case"] for item in all_volumes(data)]
    assert cases == ["a_t1", "b_masked_t1", "c_counts", "linked_one_t1"]
    assert "3 files are left out as label maps" in caplog.text
    assert "a_seg.nii.gz" in caplog.text


def test_of_a_series_the_first_volume_is_taken_and_of_channels_all(tmp_path, caplog):
    save(tmp_path / "dwi.nii.gz", (8, 8, 8, 7))
    save(tmp_path / "mri.nii.gz", (8, 8, 8, 4))
    with caplog.at_level(logging.INFO):
        items = all_volumes(tmp_path)
    assert [(item["case"], item["channels"]) for item in items] == [
        ("dwi_0", [0]),
        *((f"mri_{i}", [i]) for i in range(4)),
    ]
    assert "1 files hold a series of more than 4 volumes; the first of each is taken: dwi" in (
        caplog.text
    )
