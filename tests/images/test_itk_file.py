"""NRRD and MetaImage: shapes, channels, geometry, header files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import itk
import numpy as np
import pytest
from monai.data import ITKReader

from lora_ext.images.image_file import check_same_grid
from lora_ext.images.itk_file import data_file, open_itk
from lora_ext.images.reader import open_image

NAMES = ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"]
RAS = np.array([[1.0, 0, 0, 10], [0, 2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])
LPS = np.diag([-1.0, -1, 1, 1]) @ RAS
DIRECTIONS = "(1,0,0) (0,2,0) (0,0,3)"


def voxels(channels=0, dtype=np.int16):
    shape = (4, 5, 6, channels) if channels else (4, 5, 6)
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [0, 2, 3, 4, 5, 6, 9])
def test_any_number_of_channels_of_any_type_comes_back(
    tmp_path, write_image, oblique, name, dtype, channels
):
    path = write_image(tmp_path / name, voxels(channels, dtype), oblique, compression=True)
    image = open_itk(path)
    assert image.shape == voxels(channels).shape
    np.testing.assert_array_equal(image.read(), voxels(channels))
    np.testing.assert_allclose(image.affine, oblique, atol=1e-12)


def test_the_affine_is_that_of_monais_reader(tmp_path, write_image, oblique):
    for name in NAMES:
        path = write_image(tmp_path / name, voxels(), oblique)
        reader = ITKReader()
        _, meta = reader.get_data(reader.read(path))
        np.testing.assert_allclose(open_itk(path).affine, meta["affine"], atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_of_four_axes_holds_channels(tmp_path, name):
    image = itk.image_from_array(voxels(2, np.float32).transpose(3, 2, 1, 0).copy())
    image.SetSpacing([1.0, 2.0, 3.0, 1.0])
    image.SetOrigin([10.0, 20.0, 30.0, 0.0])
    itk.imwrite(image, str(tmp_path / name))
    opened = open_itk(str(tmp_path / name))
    assert opened.num_channels == 2
    np.testing.assert_array_equal(opened.read(), voxels(2))
    np.testing.assert_allclose(opened.affine, LPS)


def nrrd(path, array, header):
    """An NRRD as other programs write it; the first axis of the header is the fastest."""
    start = f"NRRD0005\ntype: int16\nendian: little\nencoding: raw\n{header}\n\n"
    path.write_bytes(start.encode() + array.tobytes(order="F"))
    return str(path)


@pytest.mark.parametrize(
    ("space", "affine"),
    [
        ("right-anterior-superior", RAS),
        ("RAS", RAS),
        ("left-anterior-superior", np.diag([-1.0, 1, 1, 1]) @ RAS),
        ("left-posterior-superior", LPS),
    ],
)
def test_an_nrrd_may_be_written_in_any_patient_space(tmp_path, space, affine):
    header = (
        f"dimension: 3\nspace: {space}\nsizes: 4 5 6\nspace directions: {DIRECTIONS}\n"
        "space origin: (10,20,30)"
    )
    image = open_itk(nrrd(tmp_path / "a.nrrd", voxels(), header))
    np.testing.assert_allclose(image.affine, affine)
    np.testing.assert_array_equal(image.read(), voxels())


def test_an_nrrds_list_of_channels_may_be_its_first_or_last_axis(tmp_path):
    last = (
        "dimension: 4\nspace: RAS\nsizes: 4 5 6 2\nkinds: domain domain domain list\n"
        f"space directions: {DIRECTIONS} none\nspace origin: (10,20,30)"
    )
    first = (
        "dimension: 4\nspace: RAS\nsizes: 2 4 5 6\nkinds: list domain domain domain\n"
        f"space directions: none {DIRECTIONS}\nspace origin: (10,20,30)"
    )
    for header, array in ((last, voxels(2)), (first, np.moveaxis(voxels(2), 3, 0))):
        image = open_itk(nrrd(tmp_path / "a.nrrd", array, header))
        np.testing.assert_array_equal(image.read(), voxels(2))
        np.testing.assert_allclose(image.affine, RAS)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (
            "dimension: 4\nspace: right-anterior-superior-time\nsizes: 4 5 6 2\n"
            "kinds: space space space time\n"
            "space directions: (1,0,0,0) (0,2,0,0) (0,0,3,0) (0,0,0,1)",
            r"expected the space right-anterior-superior, .*, got right-anterior-superior-time",
        ),
        (
            f"dimension: 3\nspace: scanner-xyz\nsizes: 4 5 12\nspace directions: {DIRECTIONS}",
            r"expected the space .*, got scanner-xyz",
        ),
        ("dimension: 4\nsizes: 2 4 5 6", "expected kinds such as .*, got four axes without kinds"),
        (
            "dimension: 4\nspace: RAS\nsizes: 2 4 5 6\nkinds: complex domain domain domain\n"
            f"space directions: none {DIRECTIONS}",
            "expected voxels of real numbers, got complex",
        ),
        (
            f"dimension: 4\nspace: RAS\nsizes: 4 5 6 2\nspace directions: {DIRECTIONS} none\n"
            "kinds: domain domain domain time",
            r".*got a damaged or truncated one \(ReadImageInformation: number of domain axes",
        ),
    ],
)
def test_an_nrrd_whose_axes_space_or_numbers_are_uncertain_is_refused(tmp_path, header, words):
    path = nrrd(tmp_path / "a.nrrd", voxels(2), header)
    with pytest.raises(ValueError, match=rf"a\.nrrd: {words}"):
        open_itk(path)


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keep", [0.5, 0.9, 30])
def test_a_truncated_file_is_called_damaged(tmp_path, write_image, name, compression, keep):
    path = write_image(tmp_path / name, voxels(), RAS, compression=compression)
    part = Path(data_file(path) or path)
    content = part.read_bytes()
    part.write_bytes(content[: keep if keep > 1 else int(keep * len(content))])
    with pytest.raises(ValueError, match=rf"{name}: .*got a damaged or truncated one \([^\n]+$"):
        open_itk(path).read()


@pytest.mark.parametrize("name", NAMES)
def test_a_compressed_file_with_a_wrong_byte_is_called_damaged(tmp_path, write_image, name):
    """ITK compares no checksum, and gives wrong voxels where a MetaImage's do not decompress."""
    path = write_image(tmp_path / name, voxels(), RAS, compression=True)
    part = Path(data_file(path) or path)
    content = bytearray(part.read_bytes())
    content[-60] ^= 255
    part.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: .*got a damaged or truncated one"):
        open_itk(path).read()


def test_a_file_of_another_format_is_called_damaged(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_text("no image", encoding="utf-8")
        with pytest.raises(ValueError, match=rf"{name}: .*got a damaged or truncated one"):
            open_image(str(tmp_path / name))


def test_a_header_names_its_data_file(tmp_path, write_image):
    found = {name: data_file(write_image(tmp_path / name, voxels(), RAS)) for name in NAMES}
    raw = str(tmp_path / "a.raw")
    assert found == {"a.nrrd": None, "a.nhdr": raw, "a.mha": None, "a.mhd": raw}
    assert all(open_itk(str(tmp_path / name)) for name in NAMES)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("a.nhdr", "NRRD0004\ndimension: 3\ndata file: LIST\na.raw\nb.raw\n"),
        ("a.nhdr", "NRRD0004\ndimension: 3\ndata file: %03d.raw 1 6 1\n"),
        ("a.mhd", "ObjectType = Image\nElementDataFile = LIST\na.raw\n"),
        ("a.mhd", "ObjectType = Image\nElementDataFile = %03d.raw 1 6 1\n"),
    ],
)
def test_a_header_of_many_data_files_is_refused(tmp_path, name, entry):
    (tmp_path / name).write_text(entry, encoding="utf-8")
    words = r"expected the name of one data file, got the entry '(LIST|%03d).*'"
    with pytest.raises(ValueError, match=rf"{name}: {words}"):
        data_file(str(tmp_path / name))


def test_a_sheared_nrrd_keeps_its_affine(tmp_path):
    header = (
        "dimension: 3\nspace: RAS\nsizes: 4 5 6\nspace directions: (1,0,0) (0.5,2,0) (0,0,3)\n"
        "space origin: (10,20,30)"
    )
    image = open_itk(nrrd(tmp_path / "a.nrrd", voxels(), header))
    expected = RAS.copy()
    expected[0, 1] = 0.5
    np.testing.assert_allclose(image.affine, expected, atol=1e-12)


def test_formats_agree_on_one_grid_closely_enough(tmp_path, write_image, oblique):
    """NIfTI keeps float32, the others decimals of their own."""
    images = [
        open_image(write_image(tmp_path / name, voxels(), oblique))
        for name in ("a.nii.gz", "series", *NAMES)
    ]
    for image in images:
        check_same_grid(images[0], image)


@pytest.mark.parametrize("spelling", ["{}", " {}", "{}\r"])
@pytest.mark.parametrize("entry", ["/etc/passwd", "../a.raw", "x/../../a.raw", "sub/a.raw", "link"])
@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd", "a.mha"])
def test_a_header_reaches_no_file_outside_its_folder(tmp_path, write_image, name, entry, spelling):
    folder = tmp_path / "data"
    header = Path(
        write_image(folder / f"a{'.nhdr' if name == 'a.nhdr' else '.mhd'}", voxels(), RAS)
    )
    (folder / "sub").mkdir()
    for place in (tmp_path / "a.raw", folder / "sub/a.raw"):
        place.write_bytes((folder / "a.raw").read_bytes())
    (folder / "link").symlink_to(tmp_path / "a.raw")
    text = header.read_text(encoding="utf-8").replace("a.raw", spelling.format(entry))
    (folder / name).write_text(text, encoding="utf-8", newline="")
    with pytest.raises(
        ValueError, match=rf"{name}: expected a data file in the header's own folder"
    ):
        open_image(str(folder / name))


def test_a_header_that_hides_its_entry_behind_a_long_comment_is_not_believed(tmp_path, write_image):
    header = Path(write_image(tmp_path / "a.mhd", voxels(), RAS))
    text = header.read_text(encoding="utf-8")
    header.write_text(f"Comment = {'x' * 70000}\n{text}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.mhd: .*its header has no ElementDataFile"):
        open_image(str(header))


def test_header_and_data_may_be_linked_together(tmp_path, write_image):
    write_image(tmp_path / "store/a.mhd", voxels(), RAS)
    (tmp_path / "data").mkdir()
    for name in ("a.mhd", "a.raw"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "store" / name)
    np.testing.assert_array_equal(open_image(str(tmp_path / "data/a.mhd")).read(), voxels())
