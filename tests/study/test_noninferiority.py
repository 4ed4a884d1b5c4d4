"""Yes, no and not shown, in constructed cases."""

from __future__ import annotations

import numpy as np
import pytest

from lora_ext.study.difference import compare
from lora_ext.study.noninferiority import sentence, verdict

NOISE = np.array([-0.002, 0.001, 0.002, -0.001, 0.0005, -0.0005, 0.003, -0.003])


def comparison(shift, noise=NOISE):
    """Compare LoRA-32 with finetune, whose per-case Dice differ by `shift` and noise."""

    def record(values):
        cases = [{"case": f"{i}", "pooled_dice": v} for i, v in enumerate(values)]
        return [{"seed": 0, "fold": 0, "cases": cases}]

    base = np.linspace(0.7, 0.9, len(noise))
    regimes = {"finetune": record(base), "lora32": record(base + shift + noise)}
    return compare(regimes, "brats", "lora32", "finetune", "pooled_dice")


@pytest.mark.parametrize(
    ("shift", "scale", "answer", "reason"),
    [
        (0.0, 1, "yes", "the lower end is above the margin of -0.01"),
        (-0.005, 1, "yes", "it is lower, but by less than the margin"),
        (0.05, 1, "yes", "it is better: the whole interval is above 0"),
        (-0.05, 1, "no", "even the upper end is below the margin of -0.01"),
        (-0.009, 10, "not shown", "the lower end is not above the margin of -0.01"),
        (-0.01, 1, "not shown", "it is lower, by how much is open"),
    ],
)
def test_the_answer_follows_from_the_ends_of_the_interval(shift, scale, answer, reason):
    found = comparison(shift, scale * NOISE)
    assert verdict(found) == answer
    text = sentence(found)
    assert text.startswith("Is LoRA-32 as good as Finetune on BraTS? **")
    assert f"**{answer.capitalize()}**" in text
    assert reason in text
    assert f"{found.difference:+.4f}" in text
    assert f"{found.low:+.4f} to {found.high:+.4f}" in text
    assert "8 cases" in text


def test_a_wider_margin_can_turn_no_into_yes():
    found = comparison(-0.05)
    assert (verdict(found, 0.01), verdict(found, 0.1)) == ("no", "yes")
    assert "margin of -0.1" in sentence(found, 0.1)


def test_too_few_cases_show_nothing():
    found = comparison(0.2, NOISE[:4])
    assert verdict(found) == "not shown"
    assert "**Not shown**: 4 paired cases" in sentence(found)


@pytest.mark.parametrize("margin", [0.0, -0.01])
def test_a_margin_that_is_not_positive_is_refused(margin):
    with pytest.raises(ValueError, match="above 0 is needed"):
        verdict(comparison(0.0), margin)
