import logging

import pytest

from lora_ext.regimes import REGIMES
from lora_ext.weights import start_encoder

PRETRAINED = [name for name, regime in REGIMES.items() if regime.pretrained]


@pytest.mark.parametrize("regime", PRETRAINED)
def test_regime_that_wants_a_pretrained_encoder_refuses_to_start_without(small_network, regime):
    with pytest.raises(ValueError, match=f"regime '{regime}' starts from.*--pretrained none"):
        start_encoder(small_network(regime=regime), None)


@pytest.mark.parametrize("none", ["none", "None", "NONE"])
@pytest.mark.parametrize("regime", PRETRAINED)
def test_random_weights_on_purpose_are_warned_of(small_network, caplog, regime, none):
    start_encoder(small_network(regime=regime), none)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"regime '{regime}' starts from random weights" in record.getMessage()


@pytest.mark.parametrize("pretrained", [None, "none"])
def test_baseline_starts_at_random_in_silence(small_network, caplog, pretrained):
    caplog.set_level(logging.DEBUG)
    start_encoder(small_network(regime="baseline"), pretrained)
    assert not caplog.records


def test_baseline_refuses_a_pretrained_encoder(small_network):
    with pytest.raises(ValueError, match=r"baseline.*vit\.pt.*finetune"):
        start_encoder(small_network(regime="baseline"), "vit.pt")


def test_loaded_encoder_is_said(small_network, vit, torch_file, caplog, holds):
    caplog.set_level(logging.INFO)
    network = small_network()
    start_encoder(network, str(torch_file(vit.state_dict())))
    counts = "vit.pt: 49 keys loaded, 8 skipped (blocks.*.norm_cross_attn), 0 missing"
    assert counts in caplog.text
    assert holds(network, vit)
