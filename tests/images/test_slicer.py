"""Segmentations of 3D Slicer: cropped, in layers, placed on their image by their geometry.

The files are written as Slicer 5 writes them, byte by byte: `pynrrd` and Slicer are not at hand.
"""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged

from lora_ext.data import PlaceLabeld, check_cases
from lora_ext.images import VolumeReader, open_image

SHAPE = (12, 10, 8)
REGIONS = {1: (slice(2, 9), slice(3, 8), slice(1, 6)), 2: (slice(4, 7), slice(4, 6), slice(2, 4))}


def seg_nrrd(path, layers, affine, segments):
    """Write layers (L, H, W, D) with an affine in RAS."""
    lps = np.diag([-1, -1, 1, 1]) @ affine
    vectors = " ".join(
        "(" + ",".join(f"{v:.17g}" for v in lps[:3, axis]) + ")" for axis in range(3)
    )
    several = len(layers) > 1
    fields = [
        "NRRD0004",
        "type: unsigned char",
        f"dimension: {3 + several}",
        "space: left-posterior-superior",
        f"sizes: {f'{len(layers)} ' if several else ''}{' '.join(map(str, layers[0].shape))}",
        f"space directions: {'none ' if several else ''}{vectors}",
        f"kinds: {'list ' if several else ''}domain domain domain",
        "encoding: gzip",
        f"space origin: ({','.join(f'{v:.17g}' for v in lps[:3, 3])})",
    ]
    for number, (name, layer, value) in enumerate(segments):
        own = {"ID": f"Segment_{number + 1}", "Name": name, "Layer": layer, "LabelValue": value}
        fields += [f"Segment{number}_{key}:={text}" for key, text in own.items()]
    array = np.stack(layers) if several else layers[0]
    voxels = gzip.compress(array.astype(np.uint8).tobytes(order="F"))
    path.write_bytes("\n".join([*fields, "", ""]).encode() + voxels)
    return str(path)


def truth():
    label = np.zeros(SHAPE, np.uint8)
    for value, box in REGIONS.items():
        label[box] = value
    return label


@pytest.fixture
def case(tmp_path, write_image, oblique):
    """A function that writes an image and its cropped segmentation, in one or two layers."""

    def write(layered, names=("tumour", "core"), name="a"):
        image = write_image(tmp_path / f"{name}.nii.gz", np.ones(SHAPE, np.float32), oblique)
        box = (slice(1, 10), slice(2, 9), slice(1, 7))
        affine = oblique.copy()
        affine[:3, 3] = (oblique @ [1, 2, 1, 1])[:3]
        label = truth()[box]
        layers, segments = [label], [(names[0], 0, 1), (names[1], 0, 2)]
        if layered:  # both with the value 1, the inner one inside the outer
            layers, segments = [label > 0, label == 2], [(names[0], 0, 1), (names[1], 1, 1)]
        path = seg_nrrd(tmp_path / f"{name}.seg.nrrd", layers, affine, segments)
        return {"case": name, "image": image, "label": path, "channels": [0]}

    return write


@pytest.mark.parametrize("layered", [False, True])
def test_a_cropped_segmentation_is_placed_on_its_image(case, layered):
    item = case(layered)
    assert open_image(item["label"]).segments == {1: "tumour", 2: "core"}
    keys = ["image", "label"]
    load = [LoadImaged(keys, reader=VolumeReader(), ensure_channel_first=True), PlaceLabeld(keys)]
    loaded = Compose(load)(item)
    assert (loaded["label"][0].numpy() == truth()).all()
    assert np.allclose(loaded["label"].affine, loaded["image"].affine)
    labels = {0: "background", 1: "tumour", 2: "core"}
    assert check_cases([item], channel_names=["CT"], label_values=labels) == {1, 2}


def test_segments_in_another_order_are_refused(case):
    items = [case(False), case(False, ("core", "tumour"), "b")]
    words = r"b\.seg\.nrrd: expected the label value 2 for the segment core, as in the other cases"
    with pytest.raises(ValueError, match=words):
        check_cases(items, channel_names=["CT"])


def test_segments_that_overlap_in_part_are_refused(tmp_path, oblique):
    one, two = np.zeros((2, *SHAPE), np.uint8)
    one[2:6], two[4:8] = 1, 1
    path = seg_nrrd(tmp_path / "a.seg.nrrd", [one, two], oblique, [("a", 0, 1), ("b", 1, 1)])
    with pytest.raises(
        ValueError, match=r"apart or one inside the other, got b and a, which share"
    ):
        open_image(path).read()


def test_a_layer_that_is_not_there_is_refused(tmp_path, oblique):
    path = seg_nrrd(tmp_path / "a.seg.nrrd", [np.ones(SHAPE)], oblique, [("a", 3, 1)])
    with pytest.raises(
        ValueError, match="in one of 1 layers and with a label value, got the layer 3"
    ):
        open_image(path)
