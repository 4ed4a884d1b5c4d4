"""Segmentations land in a folder of their own, and none is replaced or skipped unasked."""

import os

import pytest

from lora_ext.images import pending_cases


@pytest.fixture
def task(tmp_path):
    """A folder of data: two cases of one file, one of two files, one of a DICOM series."""
    names = ("imagesTr/a.nii.gz", "imagesTr/b c.nii.gz", "clinic/p_T2.nrrd", "clinic/p_ADC.nrrd")
    for name in (*names, "labelsTr/a.nii.gz", "series/d/I0", "labelsTs/x", "elsewhere/x"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "data" / "elsewhere")
    (tmp_path / "model.pt").write_bytes(b"weights")
    return tmp_path / "data"


@pytest.fixture
def pending(task, tmp_path):
    """A function that asks for the cases to segment, by name."""
    images = {
        "a": str(task / "imagesTr" / "a.nii.gz"),
        "b c": str(task / "imagesTr" / "b c.nii.gz"),
        "p": [str(task / "clinic" / "p_T2.nrrd"), str(task / "clinic" / "p_ADC.nrrd")],
        "d": str(task / "series" / "d"),
        "l": str(task / "linked" / "x"),
    }
    cases = [{"case": case, "image": image} for case, image in images.items()]

    def ask(out=tmp_path / "out", dataset_dir=task, ext=".nii.gz", **choice):
        model = tmp_path / "model.pt"
        return [i["case"] for i in pending_cases(cases, dataset_dir, out, ext, model, **choice)]

    return ask


ALL = ["a", "b c", "p", "d", "l"]


def finish(folder, *cases, ext=".nii.gz"):
    for case in cases:
        (folder / f"{case}{ext}").write_text("done", encoding="utf-8")


@pytest.mark.parametrize("choice", [{}, {"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize(
    "place",
    ["imagesTr", "clinic", "series", "series/d", "labelsTr", "labelsTs", "imagesTr/../labelsTr",
     "linked", "elsewhere", "imagesNew", "link_to_images"],
)  # fmt: skip
def test_no_folder_of_the_data_is_written_to(pending, task, place, choice):
    (task / "link_to_images").symlink_to(task / "imagesTr")
    before = sorted(os.walk(task))
    with pytest.raises(ValueError, match=r"found a folder of the data .* another --output_dir"):
        pending(task / place, **choice)
    assert sorted(os.walk(task)) == before


@pytest.mark.parametrize("place", ["out", "data/segmentations", "data/imagesTr/segmentations"])
def test_other_folders_are_taken(pending, tmp_path, place):
    assert pending(tmp_path / place) == ALL


def test_segmentations_that_are_there_are_neither_replaced_nor_skipped_unasked(pending, tmp_path):
    assert pending() == ALL
    finish(tmp_path / "out", "b c")
    with pytest.raises(ValueError, match=r"found 1 of 5 segmentations \(b c.nii.gz\).*--resume"):
        pending()
    assert pending(ext=".nrrd") == ALL  # other files
    assert pending(overwrite=True) == ALL


def test_resumed_inference_leaves_out_what_is_done(pending, tmp_path, caplog):
    caplog.set_level("INFO")
    assert pending(resume=True) == ALL  # nothing to resume
    finish(tmp_path / "out", "b c", "d")
    assert pending(resume=True) == ["a", "p", "l"]
    assert "2 of 5 cases are done" in caplog.text
    finish(tmp_path / "out", *ALL)
    assert pending(resume=True) == []


def test_resumed_overwriting_does_not_take_old_segmentations_for_done_ones(pending, tmp_path):
    pending()
    finish(tmp_path / "out", *ALL)
    (tmp_path / "model.pt").write_bytes(b"other weights")
    assert pending(overwrite=True) == ALL
    assert pending(resume=True) == ALL
    os.utime(tmp_path / "out" / "a.nii.gz", ns=(1, 1))  # written again, whatever the clock says
    assert pending(resume=True) == ALL[1:]


def test_segmentations_of_another_model_or_of_other_data_or_of_unknown_origin_are_not_resumed(
    pending, tmp_path
):
    pending()
    finish(tmp_path / "out", "a")
    with pytest.raises(ValueError, match=r"segmentations of the dataset_dir .*/data, expected"):
        pending(dataset_dir=tmp_path, resume=True)
    (tmp_path / "model.pt").write_bytes(b"other weights")
    with pytest.raises(ValueError, match=r"segmentations of the model \w{64}, expected \w{64}; gi"):
        pending(resume=True)
    for record in (tmp_path / "out").glob(".*.json"):
        record.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="segmentations of the model unknown, expected"):
        pending(resume=True)


def test_inference_is_resumed_with_the_models_and_settings_that_it_began_with(task, tmp_path):
    models = [tmp_path / "m0.pt", tmp_path / "m1.pt"]
    for number, path in enumerate(models):
        path.write_bytes(bytes([number]))
    case = {"case": "a", "image": str(task / "imagesTr" / "a.nii.gz")}

    def ask(models, **made_with):
        return pending_cases(
            [case], task, tmp_path / "out", ".nii.gz", models, resume=True, made_with=made_with
        )

    assert ask(models, mirror_axes=(0,)) == [case]
    finish(tmp_path / "out", "a")
    assert ask(models, mirror_axes=[0]) == []
    with pytest.raises(ValueError, match=r"of the mirror_axes \[0\], expected \[\]; give another"):
        ask(models, mirror_axes=[])
    with pytest.raises(ValueError, match="found segmentations of the model"):
        ask(models[:1], mirror_axes=[0])
