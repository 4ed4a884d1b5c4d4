"""Regimes compared case by case: Wilcoxon's test, bootstrap interval, Holm, non-inferiority.

comparisons.md and comparisons.json tell what came of it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lora_ext.evaluation.tables import without_nan
from lora_ext.study.pages import NONE, dataset_sections, markdown, write_page
from lora_ext.study.paper import title
from lora_ext.study.results import OVERALL, dice_frame, run_frame, titles, write_json

MAIN = "pooled_dice"  # the measure of the main comparison, per case
FULL = ("finetune", "frozen", "baseline")  # what regimes with adapters are compared with
# With 5 differences the smallest two-sided p-value of the test is 2 / 2^5 = 0.0625, so fewer
# than 6 cannot show anything at 0.05.
MIN_CASES = 6
RESAMPLES = 9999
MARGIN = 0.01  # the loss of Dice that non-inferiority accepts
COLUMNS = (
    *("measure", "regime", "other", "cases", "measurements", "unpaired", "mean", "other_mean"),
    *("difference", "low", "high", "p", "note"),
)
FAMILIES = {"main": "Pooled Dice per case", "regions": "Dice per region and case"}
LEGEND = f"""\
- The unit is the case: two regimes are paired by data set, seed, fold and case, and a case that
  several seeds evaluated counts once, with its mean. A positive difference means that the regime
  in the first column is better. What only one of the two measured (a failed run) is left out.
- **Pooled** is here the Dice over all voxels of all regions *of one case*,
  2 TP / (2 TP + FP + FN), averaged over cases; table1.md pools all cases.
- *p*: Wilcoxon's signed-rank test, two-sided, zero differences left out; none ({NONE}) for fewer
  than {MIN_CASES} differences, which cannot reach 0.05. *p (Holm)* is corrected for all comparisons
  of its table. The smallest *p* that n cases can give is 2 / 2^n (0.016 for 7), so with few cases
  no corrected value can be small, whatever the effect; read the interval then.
- The interval is a bootstrap over cases (BCa, {RESAMPLES} samples, fixed seed), not over seeds or
  folds. It is a little too narrow for few cases: in simulations it held the true value in 83 to
  88 % of studies with 6 cases and in 91 to 93 % with 20.
- *As good as* means non-inferior with a margin of {MARGIN:g} Dice: **yes** when the whole interval
  lies above -{MARGIN:g}, **no** when it lies below, else **not shown**, which does not mean
  "worse". It is not corrected for asking about several ranks; LoRA-32's is the main answer.
- {{{{ encoder_rule }}}}
"""


def write_comparisons(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write comparisons.md and comparisons.json into a folder."""
    runs = run_frame(results)
    found = compare_all(dice_frame(results, per_case=True), runs)
    bodies, answers = {}, []
    for dataset, own in runs.groupby("dataset"):
        here, names = found[found["dataset"] == dataset], titles(own)
        told = [
            {"dataset": str(dataset), "regime": c["regime"]}
            | {"verdict": verdict(c), "text": sentence(c, names)}
            for c in _against_finetune(here, own)
        ]
        bodies[str(dataset)] = _body(here, names, [answer["text"] for answer in told])
        answers += told
    head, sections = "Regimes compared case by case", dataset_sections(results, bodies)
    page = write_page(folder / "comparisons.md", head, results, sections, LEGEND)
    rows = without_nan(found.to_dict("records"))
    content = {"margin": MARGIN, "comparisons": rows, "as_good_as_finetune": answers}
    write_json(folder / "comparisons.json", content)
    return [page, folder / "comparisons.json"]


def compare_all(dice: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Compare the planned pairs of all data sets, a row each, corrected within `FAMILIES`."""
    rows = []
    for dataset, own in runs.groupby("dataset"):
        cases = dice[dice["dataset"] == dataset]
        regions = [m for m in cases["measure"].unique().sort_values() if m not in OVERALL]
        for family, measures in (("main", [MAIN]), ("regions", regions)):
            for regime, other in planned_pairs(own):
                for measure in measures:
                    found = compare(cases, regime, other, measure)
                    rows.append({"family": family, "dataset": str(dataset), **found})
    frame = pd.DataFrame(rows, columns=["family", "dataset", *COLUMNS])
    frame["p"] = frame["p"].astype(float)
    place = frame.columns.get_loc("p") + 1
    frame.insert(place, "p_holm", frame.groupby(["dataset", "family"])["p"].transform(holm))
    return frame


def planned_pairs(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs that the paper's claims are about, fixed before any result.

    Each regime with adapters against finetune, frozen and baseline; finetune and frozen against
    baseline; the study's main regime (LoRA-32 where there is one) against each reference.
    """
    inside, references = _regimes(runs)
    full = [name for name in FULL if name in inside]
    pairs = [(name, other) for name in inside if name not in full for other in full]
    pairs += [(name, "baseline") for name in full[:-1] if "baseline" in full]
    main = main_regime(runs)
    return pairs + [(main, name) for name in references if main is not None]


def main_regime(runs: pd.DataFrame) -> str | None:
    """Return LoRA-32 where a data set has it, else its first regime that is no reference."""
    inside, _ = _regimes(runs)
    return "lora32" if "lora32" in inside else next(iter(inside), None)


def compare(cases: pd.DataFrame, regime: str, other: str, measure: str) -> dict[str, Any]:
    """Compare two regimes in one measure, without correction.

    Measurements are paired by seed, fold and case, and averaged over each case, so that a case
    that several seeds evaluated counts once. What only one regime has is left out.
    """
    own = cases[cases["measure"] == measure]
    wide = own.pivot_table("value", ["seed", "fold", "case"], "regime")
    wide = wide.reindex(columns=[regime, other]).dropna(how="all")
    both = wide.dropna()
    means = both.groupby("case").mean()
    differences = (means[regime] - means[other]).to_numpy()
    p, note = signed_rank(differences)
    ends = mean_interval(differences)
    if len(means) < MIN_CASES:
        p = math.nan
        note = f"{len(means)} paired cases; a test and an interval need {MIN_CASES}"
    averages = (means[regime].mean(), means[other].mean(), pd.Series(differences).mean())
    numbers = (len(means), len(both), len(wide) - len(both), *averages, *ends, p, note)
    return dict(zip(COLUMNS, (measure, regime, other, *numbers), strict=True))


def signed_rank(differences: np.ndarray) -> tuple[float, str]:
    """Test whether paired differences are symmetric about 0 (Wilcoxon, two-sided).

    Zeros are left out, as Wilcoxon did. A note says why there is no p-value (NaN).
    """
    different = int(np.count_nonzero(differences))
    if len(differences) and not different:
        return 1.0, "all differences are zero"
    if different < MIN_CASES:
        return math.nan, f"{different} cases differ; a test needs {MIN_CASES}"
    return float(stats.wilcoxon(differences).pvalue), ""


def mean_interval(differences: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of a mean difference; NaN for too few cases.

    It is BCa, since a few failed cases make differences of Dice skewed, and where that is undefined
    (hardly any distinct values) the percentile interval.
    """
    if len(differences) < MIN_CASES:
        return math.nan, math.nan
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            settings: dict[str, Any] = {"method": method, "rng": np.random.default_rng(seed)}
            found = stats.bootstrap((differences,), np.mean, n_resamples=RESAMPLES, **settings)
        low, high = found.confidence_interval  # of 95 %
        if not (math.isnan(low) or math.isnan(high)):
            break
    return float(low), float(high)


def holm(p: pd.Series) -> pd.Series:
    """Correct p-values of comparisons that are made together (Holm, 1979); NaN does not count."""
    tested = p.dropna().sort_values()
    corrected = (tested * np.arange(len(tested), 0, -1)).clip(upper=1.0).cummax()
    return corrected.reindex(p.index)


def verdict(comparison: Mapping[str, Any]) -> str:
    """Tell whether the first regime is as good as the second: ``yes``, ``no`` or ``not shown``."""
    if comparison["low"] > -MARGIN:
        return "yes"
    return "no" if comparison["high"] < -MARGIN else "not shown"


def sentence(c: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Ask whether the first regime is as good as the second; answer, with the numbers behind."""
    answer, low, high = verdict(c).capitalize(), c["low"], c["high"]
    asked = f"Is {names[c['regime']]} as good as {names[c['other']]} on {title(c['dataset'])}?"
    if math.isnan(low):
        return f"{asked} **{answer}**: {c['note']}."
    if high < -MARGIN:
        reason = f"even the upper end is below the margin of -{MARGIN:g}"
    elif low <= -MARGIN:
        lower = "; it is lower, but by how much is open" if high < 0 else ""
        reason = f"the lower end is not above the margin of -{MARGIN:g}{lower}"
    elif low > 0:
        reason = "it is better: the whole interval is above 0"
    else:
        lower = "; it is lower, but by less than the margin" if high < 0 else ""
        reason = f"the lower end is above the margin of -{MARGIN:g}{lower}"
    return (
        f"{asked} **{answer}**: the pooled Dice per case differs by {c['difference']:+.4f} (95 % "
        f"interval {low:+.4f} to {high:+.4f}, {c['cases']} cases), and {reason}."
    )


def _regimes(runs: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return a data set's regimes in their order, and its reference networks."""
    found = runs.sort_values("regime").drop_duplicates("regime")
    outside = found["reference"]
    return list(found[~outside]["regime"]), list(found[outside]["regime"])


def _against_finetune(found: pd.DataFrame, runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return regimes with adapters against full fine-tuning, the main regime first."""
    own = found[(found["family"] == "main") & (found["other"] == "finetune")]
    adapted = own[~own["regime"].isin([*FULL, *_regimes(runs)[1]])].to_dict("records")
    return sorted(adapted, key=lambda c: c["regime"] != main_regime(runs))


def _body(found: pd.DataFrame, names: Mapping[str, str], answers: list[str]) -> str:
    """Lay out a data set's comparisons: the answers, then a table per family with its notes."""
    if found.empty:
        return "One regime alone: there is nothing to compare."
    blocks = ["\n".join(f"- {answer}" for answer in answers)]
    for family, heading in FAMILIES.items():
        own = found[found["family"] == family]
        table = _table(own, names)
        table = table.drop(columns="Region") if family == "main" else table
        blocks += [f"### {heading}", markdown(table), _notes(own, names)]
    return "\n\n".join(blocks)


def _table(found: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Return comparisons as they are printed."""
    columns = {
        "Region": found["measure"],
        "Regime": found["regime"].map(names),
        "against": found["other"].map(names),
        "Cases": found["cases"],
        "Mean": found["mean"].map("{:.4f}".format),
        "Mean of the other": found["other_mean"].map("{:.4f}".format),
        "Difference": found["difference"].map("{:+.4f}".format),
        "95 % interval": found["low"].map("{:+.4f} to ".format)
        + found["high"].map("{:+.4f}".format),
        **{
            head: found[key].map(lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}")
            for key, head in (("p", "p"), ("p_holm", "p (Holm)"))
        },
    }
    return pd.DataFrame(columns).replace(["nan", "+nan", "+nan to +nan"], NONE)


def _notes(found: pd.DataFrame, names: Mapping[str, str]) -> str:
    """Say why values are missing and what was left out, each thing once."""
    pairs = found["regime"].map(names) + " against " + found["other"].map(names)
    lost = found["unpaired"].map("{} measurements that only one of the two has are left out".format)
    notes = pd.concat([found["note"], lost.where(found["unpaired"] > 0, "")])
    told = pd.concat([pairs, pairs]).groupby(notes, sort=False).unique().drop("", errors="ignore")
    lines = [
        f"- {'all pairs' if len(own) == pairs.nunique() else ', '.join(own)}: {note}"
        for note, own in told.items()
    ]
    return "\n".join(["*Notes*\n", *lines]) if lines else ""
