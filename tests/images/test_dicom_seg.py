"""DICOM SEG of an oblique series, read back with highdicom and pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, SaveImage

from lora_ext.images import VolumeReader, segmentation_writer
from lora_ext.images.dicom_seg import check_dicom_output

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

SHAPE = (12, 10, 8)
FRAME = {"0020|0052": "1.2.826.0.1.3680043.2.1125.9"}
NAMES = {1: "edema", 3: "enhancing tumour", 2: "PZ", 7: "wall"}


@pytest.fixture
def series(tmp_path, write_image, oblique):
    voxels = np.random.default_rng(0).integers(0, 900, SHAPE, dtype="i2")
    return write_image(tmp_path / "p" / "T2", voxels, oblique, tags=lambda _: FRAME)


@pytest.fixture
def save(series, tmp_path):
    """A function that writes a label map of the series -> the file."""

    def run(labels):
        image = LoadImage(reader=VolumeReader(), ensure_channel_first=True)(series)
        meta = image.meta | {"filename_or_obj": "p.nii.gz"}
        SaveImage(
            output_dir=tmp_path, output_postfix="", output_ext=".dcm", output_dtype=np.uint8,
            writer=segmentation_writer(".dcm", NAMES), resample=False, separate_folder=False,
            print_log=False,
        )(MetaTensor(torch.from_numpy(labels)[None], meta=meta))  # fmt: skip
        return tmp_path / "p.dcm"

    return run


def labels():
    found = np.zeros(SHAPE, np.uint8)
    found[3:6, 2:5, 1:4], found[7:9, 6:9, 5:7], found[0, 0, 7], found[11, 9, 0] = 1, 3, 2, 7
    return found


def test_segments_lie_on_the_voxels_of_the_source(save, series, oblique):
    found = hd.seg.segread(str(save(labels())))
    assert [s.SegmentLabel for s in found.SegmentSequence] == [
        "edema",
        "PZ",
        *list(NAMES.values())[1::2],
    ]
    volume = found.get_volume(combine_segments=True)
    lps = np.diag([-1, -1, 1, 1]) @ oblique
    for number, value in enumerate(sorted(NAMES), 1):
        there = np.argwhere(volume.array == number) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        expected = np.argwhere(labels() == value) @ lps[:3, :3].T + lps[:3, 3]
        order, other = (np.lexsort(points.round(2).T) for points in (there, expected))
        np.testing.assert_allclose(there[order], expected[other], atol=1e-3)


def test_every_frame_refers_to_the_slice_that_it_lies_on(save, series):
    found = pydicom.dcmread(save(labels()))
    sources = {s.SOPInstanceUID: s for s in map(pydicom.dcmread, Path(series).iterdir())}
    (listed,) = found.ReferencedSeriesSequence
    assert listed.SeriesInstanceUID == next(iter(sources.values())).SeriesInstanceUID
    assert {i.ReferencedSOPInstanceUID for i in listed.ReferencedInstanceSequence} == {*sources}
    first = next(iter(sources.values()))
    assert found.StudyInstanceUID == first.StudyInstanceUID
    assert found.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert found.NumberOfFrames == 3 + 2 + 1 + 1
    for frame in found.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        expected = sources[source.ReferencedSOPInstanceUID].ImagePositionPatient
        np.testing.assert_allclose(place, expected, atol=1e-3)


def test_segments_are_coded(save):
    found = pydicom.dcmread(save(labels()))
    coded = {
        s.SegmentLabel: s.SegmentedPropertyTypeCodeSequence[0].CodeMeaning
        for s in found.SegmentSequence
    }
    assert coded == {
        "edema": "Edema",
        "enhancing tumour": "Enhancing Lesion",
        "PZ": "Peripheral zone of the prostate",
        "wall": "Tissue",
    }


def test_a_segmentation_of_nothing_is_written_too(save):
    found = hd.seg.segread(str(save(np.zeros(SHAPE, np.uint8))))
    assert len(found.SegmentSequence) == 4
    assert not found.pixel_array.any()


def test_cases_that_are_no_series_are_refused_before_work_starts(tmp_path, write_image, oblique):
    path = write_image(tmp_path / "a.nii.gz", np.ones(SHAPE, "i2"), oblique)
    with pytest.raises(ValueError, match=r"a\.nii\.gz: expected the folder of a DICOM series"):
        check_dicom_output([{"case": "a", "image": path}])
    bare = write_image(tmp_path / "b", np.ones(SHAPE, "i2"), oblique)
    with pytest.raises(ValueError, match="b: expected FrameOfReferenceUID in its files"):
        check_dicom_output([{"case": "b", "image": [bare]}])
