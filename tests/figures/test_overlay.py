"""Overlays are rendered and looked at, pixel by pixel, from arrays and from image files."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib as mpl
import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from lora_ext.figures import overlay_figure, overlay_from_files, save_figure
from lora_ext.figures.overlay import DOTS_PER_INCH, FILL_ALPHA, region_colours

REGIONS = {"TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}
SHAPE = (40, 48, 24)
GREY = 0.5
REAL = Path(os.environ.get("LORA_EXT_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))


def nested(shift: int = 0) -> np.ndarray:
    """Nested boxes around voxel (20, 24, 12), moved along the first axis."""
    masks = np.zeros((3, *SHAPE), dtype=bool)
    for mask, half in zip(masks, (6, 10, 3), strict=True):
        first = slice(20 - half + shift, 21 + half + shift)
        mask[first, 24 - half : 25 + half, 12 - half : 13 + half] = True
    return masks


def grey_image() -> np.ndarray:
    """Two channels: the first black to white at the ends, grey inside; the second constant."""
    image = np.full((2, *SHAPE), GREY, dtype=np.float32)
    image[0, 0], image[0, -1] = 0.0, 1.0
    return image


def pixel(figure: Figure, axes: Axes, column: float, row: float) -> np.ndarray:
    """Return the rendered colour (RGB, 0 to 1) at a voxel of a drawn slice."""
    figure.canvas.draw()
    canvas = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    x, y = axes.transData.transform((column, row))
    return canvas[canvas.shape[0] - 1 - int(y), int(x)]


def shown(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def test_every_nested_region_shows_its_own_colour_over_the_image() -> None:
    figure = overlay_figure(grey_image(), nested(), nested(), REGIONS, affine=lps())
    colours = region_colours(list(REGIONS))
    grey = pixel(figure, figure.axes[0], 20, 24)
    assert np.ptp(grey) < 0.01  # the image itself carries no colour
    for axes in figure.axes[1:3]:
        for name, distance in (("ET", 0), ("TC", 4.5), ("WT", 8)):
            expected = FILL_ALPHA * np.array(to_rgb(colours[name])) + (1 - FILL_ALPHA) * grey
            np.testing.assert_allclose(pixel(figure, axes, 20 + distance, 24), expected, atol=0.02)
        np.testing.assert_allclose(pixel(figure, axes, 34, 24), grey, atol=0.01)


def lps(sizes: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Affine of a volume stored the way it is drawn, so that voxels need no turning."""
    return np.diag([-sizes[0], -sizes[1], sizes[2], 1.0])


def test_contours_of_coinciding_regions_are_both_visible() -> None:
    both, alone = nested(), nested()
    both[0] = both[1]  # TC fills WT
    alone[0], alone[1] = alone[1], False
    blue = to_rgb(region_colours(list(REGIONS))["WT"])
    seen = []
    for masks in (both, alone):
        figure = overlay_figure(grey_image(), masks, masks, REGIONS, affine=lps())
        figure.set_dpi(DOTS_PER_INCH)
        figure.canvas.draw()
        canvas = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
        box = figure.axes[1].get_window_extent()
        height = len(canvas)
        drawn = canvas[height - int(box.y1) : height - int(box.y0), int(box.x0) : int(box.x1)]
        seen.append(int((np.abs(drawn - blue) < 0.25).all(axis=-1).sum()))
    # A closed line around the box, not some stray pixels.
    assert seen[0] > 100
    assert seen[1] == 0


def test_truth_and_prediction_are_in_their_own_columns_with_the_dice_above() -> None:
    figure = overlay_figure(grey_image(), nested(), nested(shift=8), REGIONS, affine=lps())
    grey = pixel(figure, figure.axes[0], 20, 24)
    truth, prediction = figure.axes[1], figure.axes[2]
    assert np.ptp(pixel(figure, truth, 12, 24)) > 0.1
    np.testing.assert_allclose(pixel(figure, prediction, 12, 24), grey, atol=0.01)
    # Boxes of width 13, 21 and 7, moved by 8.
    assert prediction.get_title() == f"prediction\nDice TC {5 / 13:.3f}  WT {13 / 21:.3f}  ET 0.000"
    assert [axes.get_title() for axes in figure.axes[:2]] == ["image", "ground truth"]


def test_without_truth_there_are_two_columns_and_no_dice() -> None:
    figure = overlay_figure(grey_image(), None, nested(), REGIONS, channel_names=["FLAIR", "t1gd"])
    assert [axes.get_title() for axes in figure.axes] == ["FLAIR", "prediction", "", "", "", ""]


def test_the_legend_names_every_region_in_its_colour() -> None:
    figure = overlay_figure(grey_image(), None, nested(), REGIONS)
    (legend,) = figure.legends
    found = {
        text.get_text(): patch.get_facecolor()[:3]
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }
    assert found == {name: to_rgb(colour) for name, colour in region_colours(list(REGIONS)).items()}


def test_the_slices_go_through_the_truth_else_the_prediction_else_the_middle() -> None:
    image = np.zeros((1, *SHAPE), dtype=np.float32)
    image[0] = np.arange(SHAPE[2])  # each axial slice has its number as grey value
    truth, prediction = np.zeros((2, 1, *SHAPE), dtype=bool)
    truth[0, 10:20, 10:20, 5] = True
    prediction[0, 10:20, 10:20, 17] = True
    empty = np.zeros_like(truth)
    for layers, number in [
        ((truth, prediction), 5),
        ((empty, prediction), 17),
        ((empty, empty), 12),
    ]:
        figure = overlay_figure(image, *layers, {"WT": [1]}, affine=lps())
        assert (shown(figure.axes[0]) == number).all()


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_the_patients_right_is_on_the_left_and_the_front_up_however_it_is_stored(
    flip: tuple[int, int, int],
) -> None:
    # World coordinates as grey values: x grows to the right, y to the front, z to the head.
    world = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")).astype(np.float32)
    stored = world[:, :: flip[0], :: flip[1], :: flip[2]]
    masks = np.zeros((1, *SHAPE), dtype=bool)
    for channel, (axial, coronal, sagittal) in enumerate(
        [((0, -1), (0, -1), None), ((1, 0), None, (0, -1)), (None, (1, 0), (1, 0))]
    ):
        figure = overlay_figure(
            stored, None, masks, {"WT": [1]}, affine=np.diag([*flip, 1.0]), channel=channel
        )
        for axes, rule in zip(figure.axes[::2], (axial, coronal, sagittal), strict=True):
            if rule is None:
                continue
            slice_ = shown(axes)
            if axes.images[0].origin == "lower":
                slice_ = slice_[::-1]  # now the first row is the one on top
            along = slice_[0] if rule == (0, -1) else slice_[:, 0]
            assert (np.diff(along) < 0).all(), f"channel {channel}, {rule}"


def test_sides_are_written_only_when_the_affine_tells_them() -> None:
    known = overlay_figure(grey_image(), None, nested(), REGIONS, affine=np.eye(4))
    letters = [[text.get_text() for text in axes.texts] for axes in known.axes[::2]]
    assert letters == [["R", "L"], ["R", "L"], ["A", "P"]]
    unknown = overlay_figure(grey_image(), None, nested(), REGIONS)
    assert not any(axes.texts for axes in unknown.axes)


def test_proportions_are_those_of_the_patient_in_mm() -> None:
    sizes = (0.6, 0.6, 3.6)
    figure = overlay_figure(grey_image(), None, nested(), REGIONS, affine=lps(sizes))
    figure.canvas.draw()
    extent = np.array(SHAPE) * sizes
    for axes, (width, height) in zip(figure.axes[::2], [(0, 1), (0, 2), (1, 2)], strict=True):
        box = axes.get_window_extent()
        assert box.height / box.width == pytest.approx(extent[height] / extent[width], rel=0.01)


@pytest.mark.parametrize("fill", [0.0, np.nan, 7.0])
def test_a_constant_or_broken_image_with_nothing_predicted_can_still_be_drawn(fill: float) -> None:
    image = np.full((1, 8, 9, 10), fill, dtype=np.float32)
    nothing = torch.zeros(1, 8, 9, 10)
    overlay_figure(torch.from_numpy(image), nothing, nothing, {"WT": [1]}).canvas.draw()


def test_a_region_that_fills_the_whole_slice_can_be_drawn() -> None:
    full = torch.ones(1, 8, 9, 10)
    overlay_figure(torch.rand(1, 8, 9, 10), full, full, {"WT": [1]}).canvas.draw()


@pytest.mark.parametrize(
    ("channel", "regions", "message"),
    [
        (2, REGIONS, "channel: expected 0 to 1, got 2"),
        (0, {"WT": [1]}, r"prediction: expected the shape \(1, 40, 48, 24\), got \(3, 40"),
    ],
)
def test_what_does_not_fit_is_refused(channel: int, regions: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlay_figure(grey_image(), None, nested(), regions, channel=channel)


def test_air_is_black_even_where_normalisation_made_it_the_mean() -> None:
    image = np.zeros((1, *SHAPE), dtype=np.float32)
    image[0, 4:-4, 4:-4, 4:-4] = -1.0  # darker than air
    image[0, 12:-12, 12:-12, 8:-8] = 2.0
    figure = overlay_figure(image, None, np.zeros((1, *SHAPE)), {"WT": [1]}, affine=lps())
    # The picture starts two voxels outside the body.
    assert pixel(figure, figure.axes[0], 0, 24).max() == 0
    assert pixel(figure, figure.axes[0], 18, 24).min() > 0.9


def test_a_constant_border_is_cut_but_never_a_region() -> None:
    image = np.full((1, 20, 20, 20), -1.0)
    image[0, 5:9, 6:8, 10:12] = 3.0
    mask = np.zeros((1, 20, 20, 20), dtype=bool)
    mask[0, 15, 7, 10] = True
    figure = overlay_figure(image, None, mask, {"WT": [1]}, affine=lps())
    assert shown(figure.axes[0]).shape == (6, 15)


def test_a_saved_figure_is_the_rendered_one_and_nothing_else_stays(tmp_path: Path) -> None:
    backend, settings = mpl.get_backend(), dict(mpl.rcParams)
    figure = overlay_figure(grey_image(), nested(), nested(), REGIONS, title="BRATS_001")
    save_figure(figure, tmp_path / "figures" / "BRATS_001.png")
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["BRATS_001.png"]
    height, width = imread(tmp_path / "figures" / "BRATS_001.png").shape[:2]
    assert width / height == pytest.approx(np.divide(*figure.get_size_inches()), rel=0.01)
    assert (mpl.get_backend(), dict(mpl.rcParams)) == (backend, settings)


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
        ValueError, match=r"small\.nii\.gz: expected the shape of .*a\.nii\.gz.*got \(23, 20, 16\)"
    ):
        overlay_from_files(image, None, small, REGIONS, tmp_path / "a.png")
    moved = save(tmp_path / "moved.nii.gz", labels(), np.eye(4))
    with pytest.raises(ValueError, match=r"moved\.nii\.gz: expected the affine of .*a\.nii\.gz"):
        overlay_from_files(image, None, moved, REGIONS, tmp_path / "a.png")
    text = tmp_path / "text.nii.gz"
    text.write_text("no image", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text\.nii\.gz: expected a whole file, got a damaged"):
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
