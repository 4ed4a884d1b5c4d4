"""Pictures from image files, made up ones and, where they are at hand, real ones."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from lora_ext.figures import overlay_from_files
from lora_ext.figures.region_layer import region_colours

REGIONS = {"TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}
REAL = Path(os.environ.get("LORA_EXT_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))


def save(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(values, np.diag([1, 1, 2, 1]) if affine is None else affine), path)
    return path


def labels() -> np.ndarray:
    values = np.zeros((24, 20, 16), dtype=np.uint8)
    values[4:20, 4:16, 3:13] = 1
    values[7:17, 7:13, 5:11] = 2
    values[10:14, 9:11, 7:9] = 3
    return values


def has_colour(path: Path, name: str) -> bool:
    """Whether a contour of the region is in the picture, above the legend."""
    picture = imread(path)[..., :3]
    picture = picture[: int(0.93 * len(picture))]
    return bool(
        (np.abs(picture - to_rgb(region_colours(list(REGIONS))[name])) < 0.02).all(-1).any()
    )


def test_label_maps_become_the_regions_colours(tmp_path: Path) -> None:
    image = save(tmp_path / "a.nii.gz", np.random.default_rng(0).random((24, 20, 16, 2)))
    truth = save(tmp_path / "truth.nii.gz", labels())
    without_enhancing = save(tmp_path / "pred.nii.gz", np.minimum(labels(), 2))
    out = overlay_from_files(image, truth, truth, REGIONS, tmp_path / "both.png", channel=1)
    assert out == tmp_path / "both.png"
    assert [has_colour(out, name) for name in REGIONS] == [True, True, True]
    out = overlay_from_files(image, None, without_enhancing, REGIONS, tmp_path / "new" / "one.png")
    assert [has_colour(out, name) for name in REGIONS] == [True, True, False]


def test_an_image_without_a_channel_axis_is_one_channel(tmp_path: Path) -> None:
    image = save(tmp_path / "a.nii", np.random.default_rng(0).random((24, 20, 16)))
    truth = save(tmp_path / "truth.nii", labels())
    assert overlay_from_files(image, truth, truth, REGIONS, tmp_path / "a.png").is_file()


@pytest.mark.parametrize(("image", "truth"), [("a.nrrd", "b.mha"), ("a", "b.nii.gz")])
def test_files_of_any_format_are_drawn(tmp_path, write_image, oblique, image, truth) -> None:
    values = np.random.default_rng(0).integers(0, 999, (24, 20, 16)).astype(np.int16)
    image = write_image(tmp_path / image, values, oblique)
    truth = write_image(tmp_path / truth, labels(), oblique)
    out = overlay_from_files(image, truth, truth, REGIONS, tmp_path / "a.png")
    assert all(has_colour(out, name) for name in REGIONS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.nrrd: found no such file"):
        overlay_from_files(tmp_path / "a.nrrd", None, tmp_path / "b.nrrd", REGIONS, tmp_path / "c")


def test_files_that_do_not_lie_on_the_images_grid_are_refused_by_name(tmp_path: Path) -> None:
    image = save(tmp_path / "a.nii.gz", np.zeros((24, 20, 16, 2), dtype=np.float32))
    small = save(tmp_path / "small.nii.gz", labels()[:-1])
    with pytest.raises(
        ValueError, match=r"small\.nii\.gz: found the shape \(23, 20, 16\).*a\.nii\.gz"
    ):
        overlay_from_files(image, None, small, REGIONS, tmp_path / "a.png")
    moved = save(tmp_path / "moved.nii.gz", labels(), np.eye(4))
    with pytest.raises(ValueError, match=r"moved\.nii\.gz: found the affine .*a\.nii\.gz"):
        overlay_from_files(image, None, moved, REGIONS, tmp_path / "a.png")
    text = tmp_path / "text.nii.gz"
    text.write_text("no image")
    with pytest.raises(ValueError, match=r"text\.nii\.gz: found a damaged or truncated file"):
        overlay_from_files(image, text, text, REGIONS, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.skipif(
    not (REAL / "Task01_BRATS2013").is_dir(),
    reason="needs real data: Task01_BRATS2013 in LORA_EXT_REAL_DATA or ../shared/data",
)
def test_a_real_patient_is_drawn_with_all_regions(tmp_path: Path) -> None:
    task = REAL / "Task01_BRATS2013"
    image = sorted((task / "imagesTr").glob("*.nii.gz"))[0]
    truth = task / "labelsTr" / image.name
    out = overlay_from_files(image, truth, truth, REGIONS, tmp_path / "real.png")
    assert all(has_colour(out, name) for name in REGIONS)
