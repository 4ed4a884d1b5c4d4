"""Is one regime as good as another: non-inferiority with a stated margin, as a sentence."""

from __future__ import annotations

from lora_ext.study.difference import Comparison
from lora_ext.study.paper import dataset_title, measure_title, regime_title

MARGIN = 0.01  # Dice


def verdict(comparison: Comparison, margin: float = MARGIN) -> str:
    """Tell whether the first regime is as good as the second, up to a margin.

    Args:
        comparison: the first regime against the second.
        margin: the loss of Dice that is accepted, above 0.

    Returns:
        ``yes`` when the whole 95 % interval of the difference lies above -margin, ``no`` when it
        lies below, else ``not shown``, also when there is no interval.

    Raises:
        ValueError: the margin is not positive.
    """
    if margin <= 0:
        raise ValueError(f"margin is {margin}; a loss of Dice above 0 is needed")
    if comparison.low is None or comparison.high is None:
        return "not shown"
    if comparison.low > -margin:
        return "yes"
    return "no" if comparison.high < -margin else "not shown"


def sentence(comparison: Comparison, margin: float = MARGIN) -> str:
    """Answer in words whether the first regime is as good as the second.

    Args:
        comparison: the first regime against the second.
        margin: the loss of Dice that is accepted, above 0.

    Returns:
        The question, the verdict in bold, and the numbers behind it.
    """
    answer = verdict(comparison, margin)
    regime, other = regime_title(comparison.regime), regime_title(comparison.other)
    question = f"Is {regime} as good as {other} on {dataset_title(comparison.dataset)}?"
    measure = f"{measure_title(comparison.measure)} Dice per case"
    if comparison.low is None or comparison.high is None:
        return f"{question} **{answer.capitalize()}**: {comparison.note}."
    numbers = (
        f"the {measure[0].lower() + measure[1:]} differs by {comparison.difference:+.4f} "
        f"(95 % interval {comparison.low:+.4f} to {comparison.high:+.4f}, "
        f"{comparison.cases} cases)"
    )
    return f"{question} **{answer.capitalize()}**: {numbers}, {_reason(comparison, margin)}."


def _reason(comparison: Comparison, margin: float) -> str:
    low, high = comparison.low or 0.0, comparison.high or 0.0
    if high < -margin:
        return f"and even the upper end is below the margin of -{margin:g}"
    if low <= -margin:
        lower = "; it is lower, by how much is open" if high < 0 else ""
        return f"and the lower end is not above the margin of -{margin:g}{lower}"
    if low > 0:
        return "and it is better: the whole interval is above 0"
    also = "; it is lower, but by less than the margin" if high < 0 else ""
    return f"and the lower end is above the margin of -{margin:g}{also}"
