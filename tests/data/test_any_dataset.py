"""Any dataset.json: a task as it says, or one sentence that names the file."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_ext.data import fold_cases, inference_cases
from lora_ext.phantoms import write_phantoms

QUICK = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["./imagesTr/brats_000.nii.gz", "../x", "/etc/passwd", "imagesTr", "\0"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip
FOLDS = {"fold": 0, "num_folds": 2, "split_seed": 0}
REGIONS = {"WT": [1, 2, 3]}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("any") / "task"
    write_phantoms("brats", folder, cases=2, size=(32, 32, 16), test_cases=1)
    return folder, json.loads((folder / "dataset.json").read_text(encoding="utf-8"))


def places(node, path=()):
    """Every place in a JSON document."""
    yield path
    if isinstance(node, list):
        node = dict(enumerate(node))
    for key, inner in node.items() if isinstance(node, dict) else ():
        yield from places(inner, (*path, key))


def put(node, path, value):
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = put(copy[path[0]], path[1:], value)
    return copy


@QUICK
@given(data=st.data())
def test_any_value_anywhere_ends_in_a_task_or_in_a_sentence(task, data):
    folder, whole = task
    path = data.draw(st.sampled_from(list(places(whole))))
    changed = put(whole, path, data.draw(JSON))
    (folder / "dataset.json").write_text(json.dumps(changed), encoding="utf-8")
    readers = (
        lambda: fold_cases(folder, ["FLAIR", "t1gd"], REGIONS, **FOLDS)["training"],
        lambda: inference_cases(folder, ["FLAIR", "t1gd"]),
    )
    for read in readers:
        cases = sentence = None
        try:
            cases = read()
        except ValueError as error:
            sentence = str(error)
        if sentence is not None:
            assert str(folder) in sentence or "--" in sentence
            assert "\n" not in sentence
        else:
            assert all(str(folder) in str(case["image"]) for case in cases)


@QUICK
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_end_in_a_sentence(task, content):
    folder, _ = task
    (folder / "dataset.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"dataset\.json"):
        inference_cases(folder, ["FLAIR", "t1gd"])
