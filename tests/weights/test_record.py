"""What the record of a model says of its settings."""

import pytest

from lora_ext.weights import recorded_settings, save_model, trained_settings

NAMES = ("intensity", "ct_window", "modalities", "roi_size")


@pytest.fixture
def record(tmp_path, small_network):
    """A function that saves a model with further entries in its record, and looks them up."""

    def look_up(**more):
        network = small_network(modalities=["CT", "PET"])
        network.config.update(more)
        save_model(network, tmp_path / "model.pt")
        return recorded_settings(tmp_path, NAMES)

    return look_up


def test_model_that_does_not_say_its_modalities_kinds_is_mr(record, tmp_path):
    assert record()["intensity"] == "mr"
    bundle = {"intensity": {"CT": "ct", "PET": "pet"}, "ct_window": [-10, 10]}
    assert trained_settings(tmp_path, bundle) == {"intensity": "mr", "ct_window": [-10, 10]}


def test_kinds_and_windows_are_those_of_the_record(record):
    kinds = {"CT": "ct", "PET": "pet"}
    found = record(intensity=kinds, ct_window=[-160, 240])
    assert (found["intensity"], found["ct_window"]) == (kinds, [-160, 240])
    assert found["roi_size"] == [32, 32, 16]


def test_bundle_without_a_model_has_its_own(tmp_path):
    assert recorded_settings(tmp_path, NAMES) == {}
    assert trained_settings(tmp_path, {"intensity": "ct"}) == {"intensity": "ct"}
