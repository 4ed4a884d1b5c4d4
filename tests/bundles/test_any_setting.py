"""Any value for any setting: refused in one sentence, or of the declared type and in range."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from lora_ext.bundles.generator import all_facts, bundle_facts
from lora_ext.bundles.settings import NAMED, SETTINGS, check_values, settings_of

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from(["True", "no", "1", "@seed", "$1+1", "%x::y", "cpu", "cuda:7", "none", ""])
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
PYTHON = {
    "text": str, "folder": str, "integer": int, "number": (int, float), "boolean": bool,
    "list": (list, tuple), "empty list": (list, tuple), "mapping": dict, "device": object,
}  # fmt: skip
DEFAULTS = {**all_facts()["mae_pretrain"], **bundle_facts()["brats_lora32"]}
QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def refusal(values):
    try:
        check_values(values)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", [setting.name for setting in SETTINGS])
@QUICK
@given(value=VALUES)
def test_value_is_refused_in_a_sentence_or_has_the_type(name, value):
    setting = NAMED[name]
    refused = refusal({name: value})
    if refused:
        assert refused.startswith(f"--{name}: expected ")
        assert "; got " in refused
        return
    kinds = setting.type.split(" or ")
    if value is None:
        assert {"null", "device"} & set(kinds)
        return
    if kinds == ["device"]:
        return  # torch's own check
    kinds = [kind for kind in kinds if kind != "null" and isinstance(value, PYTHON[kind])]
    assert kinds
    assert not isinstance(value, bool) or "boolean" in kinds
    if kinds == ["number"]:
        assert math.isfinite(value)


@pytest.mark.parametrize("name", ["modalities", "regions"])
@QUICK
@given(words=st.lists(st.text(min_size=1, max_size=10), min_size=1, max_size=4))
def test_names_that_pass_mean_themselves_in_a_config(name, words):
    """No name that the check lets through is a reference, an expression or a path to MONAI."""
    value = words if name == "modalities" else {word: [1] for word in words}
    if refusal({name: value}):
        return
    parser = ConfigParser({"names": value, "of": "@names"})
    parser.parse()
    assert parser.get_parsed_content("of") == value
    assert json.loads(json.dumps(parser.get_parsed_content("names"))) == value


@QUICK
@given(data=st.data())
def test_settings_together_are_refused_in_a_sentence(data):
    """Several settings at once, each as its own check would have it or not."""
    own = [s.name for s in settings_of("segmentation") if s.name in DEFAULTS]
    names = data.draw(st.lists(st.sampled_from(own), unique=True, max_size=5))
    values = {n: data.draw(st.just(DEFAULTS[n]) | VALUES) for n in names}
    refused = refusal(values)
    assert refused is None or "expected" in refused
