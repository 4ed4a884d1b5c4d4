"""The checks of ci/label_check.sh can fail; the server itself is not asked here."""

import nibabel as nib
import numpy as np
import pytest

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
REGIONS = {"WT": [1, 2], "ET": [2]}


@pytest.fixture(autouse=True)
def importable(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "ci"))


@pytest.fixture
def write(tmp_path):
    """A function that writes a volume and returns its path."""

    def write(name, voxels, affine=AFFINE):
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / f"{name}.nii.gz")
        return tmp_path / f"{name}.nii.gz"

    return write


@pytest.fixture
def image(write):
    return write("image", np.zeros((4, 5, 6, 2), np.float32))


def test_label_map_on_its_images_grid_with_known_values_passes(write, image):
    from labelling.checks import check_geometry

    label = np.zeros((4, 5, 6), np.uint8)
    label[0, 0, 0] = 2
    assert "4x5x6, values [0, 2]" in check_geometry(write("label", label), image, {0, 1, 2})


@pytest.mark.parametrize(
    ("shape", "affine", "value", "message"),
    [
        ((4, 5, 7), AFFINE, 1, "shape"),
        ((4, 5, 6), np.diag([1.0, 1.0, 1.0, 1.0]), 1, "affine is off by 2"),
        ((4, 5, 6), AFFINE, 3, r"values \{3\}"),
    ],
)
def test_label_map_of_another_grid_or_value_fails(write, image, shape, affine, value, message):
    from labelling.checks import check_geometry

    label = write("label", np.full(shape, value, np.uint8), affine)
    with pytest.raises(ValueError, match=message):
        check_geometry(label, image, {0, 1, 2})


def test_dice_is_pooled_over_regions_and_cases(write):
    from labelling.checks import pooled_dice

    truth = np.zeros((4, 4, 4), np.uint8)
    truth[:2] = 1  # 32 voxels of WT
    truth[0] = 2  # 16 of them of ET
    half = truth.copy()
    half[0] = 0  # 16 voxels of WT left, none of ET
    full, missing = write("full", truth), write("half", half)
    assert pooled_dice([(full, full)], REGIONS) == 1
    assert pooled_dice([(missing, full)], REGIONS) == pytest.approx(2 * 16 / (16 + 48))
    pairs = [(missing, full), (full, full)]
    assert pooled_dice(pairs, REGIONS) == pytest.approx(2 * (16 + 48) / (16 + 3 * 48))


def test_failed_check_is_counted_and_the_next_one_still_made():
    from labelling.checks import Report, require

    report = Report()
    report.check("first", lambda: require(False, "wrong"))
    report.check("second", lambda: "found")
    report.skip("third", "not here")
    assert report.failed == 1
    assert str(report).splitlines()[-1] == "1 passed, 1 failed"
    assert "FAILED   first" in str(report)
    assert "ValueError: wrong" in str(report)
    assert "skipped  third" in str(report)
