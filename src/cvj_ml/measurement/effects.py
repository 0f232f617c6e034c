"""Did contacting help, and were the scores right? Differences of shares, and ratios of weighted sums.

What a row of the history of `measure` says, in sentences: for a screen and for the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cvj_ml.evaluation.metrics import Z95, Interval, wilson_interval
from cvj_ml.lists.kinds import said_of_row
from cvj_ml.models.bundle.forecast_errors import LEVELS, ExpectedMoves

_NOUGHT = 3.688879454113936  # −log 0.025: the largest Poisson mean that gives nought with 2.5 %
_F64 = npt.NDArray[np.float64]


NOTHING = Interval(np.nan, np.nan, np.nan)


def wilson(converted: float, of: float) -> Interval:
    """Return a share with Wilson's score interval (Wilson 1927); of weighted people, what they are worth."""
    if not of:
        return NOTHING
    low, high = wilson_interval(converted, of)
    return Interval(converted / of, float(low), float(high))


def difference(target_moved: float, target: float, control_moved: float, control: float) -> Interval:
    """Return share of target minus share of control, with Newcombe's interval from Wilson's (1998, method 10).

    low = d − √((p₁ − l₁)² + (u₂ − p₂)²), high = d + √((u₁ − p₁)² + (p₂ − l₂)²).
    """
    one, two = wilson(target_moved, target), wilson(control_moved, control)
    found = one.estimate - two.estimate
    low = found - np.hypot(one.estimate - one.low, two.high - two.estimate)
    return Interval(found, float(low), float(found + np.hypot(one.high - one.estimate, two.estimate - two.low)))


def observed_over_expected(probability: _F64, converted: _F64, weight: _F64) -> Interval:
    """Return Σwy / Σwp, with an interval on the log scale that treats customers as drawn independently.

    By linearisation var(log R) = Σ w²(y − Rp)² / (Σwy)². Where nobody moved, the upper end is that of a Poisson count
    of nought, 3.69, in customers of the mean weight.
    """
    happened, expected = float(weight @ converted), float(weight @ probability)
    if not expected:
        return NOTHING
    if not happened:
        return Interval(0.0, 0.0, _NOUGHT * float((weight**2) @ probability) / expected**2)
    ratio = happened / expected
    spread = np.sqrt(np.sum((weight * (converted - ratio * probability)) ** 2)) / happened
    return _on_log_scale(ratio, float(spread))


def lift(converted: _F64, weight: _F64, top: npt.NDArray[np.bool_]) -> Interval:
    """Return how often those at the top moved, over how often all did: (Σ_top wy / Σ_top w) / (Σ wy / Σ w).

    The interval is that of the ratio's logarithm, linearised, over customers drawn independently. Where nobody at the
    top moved, the upper end is Wilson's for as many customers as the weights are worth, (Σ_top w)² / Σ_top w².
    """
    a, b, c, d = (
        float(weight[top] @ converted[top]),
        float(weight[top].sum()),
        float(weight @ converted),
        float(weight.sum()),
    )
    if not b or not c:
        return NOTHING
    if not a:
        worth = b**2 / float(weight[top] @ weight[top])
        return Interval(0.0, 0.0, Z95**2 / (worth + Z95**2) / (c / d))
    pull = weight * (top * (converted / a - 1 / b) - (converted / c - 1 / d))
    return _on_log_scale(a / b / (c / d), float(np.sqrt(np.sum(pull**2))))


def top_share(probability: _F64, names: Sequence[str], share: float) -> npt.NDArray[np.bool_]:
    """Return who is among the likeliest share (at least one); ties are cut by name, as in a list."""
    order = np.lexsort((np.array(names, dtype=str), -probability))
    top = np.zeros(len(probability), dtype=np.bool_)
    top[order[: max(1, round(share * len(order)))]] = True
    return top


def _on_log_scale(value: float, spread: float) -> Interval:
    return Interval(value, float(value * np.exp(-Z95 * spread)), float(value * np.exp(Z95 * spread)))


def effect_words(row: Mapping[str, Any]) -> str:
    """Say whether contacting helped."""
    if not row["target_n"] or not row["control_n"]:
        return "Did it work? Nobody can say: one of the two groups is empty."
    rates = [row[f"{arm}_moved"] / row[f"{arm}_n"] for arm in ("target", "control")]
    low, high = row["difference_low"], row["difference_high"]
    verdict = "It helped" if low > 0 else "It harmed" if high < 0 else "No effect is shown"
    gained = abs(row["difference"]) * row["target_n"]
    about = f", about {gained:,.0f} customers {'more' if low > 0 else 'fewer'}" if low > 0 or high < 0 else ""
    return (
        f"{verdict}: {rates[0]:.1%} of {row['target_n']:,} in the target group {said_of_row(row).good},"
        f" {rates[1]:.1%} of {row['control_n']:,} in control: {100 * row['difference']:+.1f} points"
        f" ({100 * low:+.1f} to {100 * high:+.1f}){about}."
    )


def group_words(row: Mapping[Any, Any]) -> str:
    """Say what contacts brought in one group by predicted effect, and what had been predicted of it."""
    predicted, found, low, high = (
        f"{100 * row[name]:+.1f}" for name in ("predicted", "difference", "difference_low", "difference_high")
    )
    return f"{row['group']} of {row['groups']}: predicted {predicted} points, found {found} ({low} to {high})"


def play_words(row: Mapping[Any, Any]) -> str:
    """Say what a play brought through its channel: its people in the target group against its people in control."""
    # A table of texts has NaN where there is none.
    through = f" through {row['channel']}" if isinstance(row["channel"], str) else ""
    told = f"{row['play']}{through}: {row['target_n']:,} in the target group, {row['control_n']:,} in control"
    if row["difference"] != row["difference"]:
        return f"{told}, so nobody can say"
    found, low, high = (100 * row[f"difference{end}"] for end in ("", "_low", "_high"))
    choice = f"; {row['with_choice']:,} of them could have had another" if row["with_choice"] else ""
    return f"{told}{choice}: {found:+.1f} points ({low:+.1f} to {high:+.1f})"


def arm_words(row: Mapping[str, Any]) -> str:
    """Say what an arm of an experiment brought to a list, against the control of its campaign."""
    of_campaign = f" of {row['campaign']}" if row["campaign"] else ""
    told = f"{row['list']}: arm {row['arm']}{of_campaign}, {row['target_n']:,} against {row['control_n']:,} in control"
    if row["difference"] != row["difference"]:
        return f"{told}, so nobody can say"
    found, low, high = (100 * row[f"difference{end}"] for end in ("", "_low", "_high"))
    return f"{told}: {found:+.1f} points ({low:+.1f} to {high:+.1f})"


def contact_words(row: Mapping[str, Any]) -> str:
    """Say which share of each group was contacted; nothing where both groups are empty."""
    parts = [
        f"{row[f'{arm}_contacted']:.0%} of {name}"
        for arm, name in (("target", "the target group"), ("control", "control"))
        if row[f"{arm}_n"]
    ]
    return f"Contacted within the horizon, for whatever reason: {' and '.join(parts)}." if parts else ""


def score_words(row: Mapping[str, Any]) -> str:
    """Say whether the probabilities came true; nothing where they could not be evaluated."""
    if row["observed_over_expected"] != row["observed_over_expected"]:
        return ""
    found = (
        f"Scores, on {row['untouched_n']:,} customers whom the lists left alone:"
        f" {row['observed_over_expected']:.2f} {said_of_row(row).did} for each one expected"
        f" ({row['observed_over_expected_low']:.2f} to {row['observed_over_expected_high']:.2f})"
    )
    if row["lift_10pct"] != row["lift_10pct"]:
        return found + "."
    low, high = row["lift_10pct_low"], row["lift_10pct_high"]
    return (
        f"{found}; the likeliest tenth {said_of_row(row).did} {row['lift_10pct']:.1f} times as often as all"
        f" ({low:.1f} to {high:.1f})."
    )


def forecast_words(row: Mapping[str, Any]) -> str:
    """Say what was expected of the listed, and whether that held in the control group; nothing where nothing was."""
    if _missing(row.get("listed")):
        return ""
    moves = ExpectedMoves.from_columns(row, "expected_moves", int(row["listed"]))
    said = said_of_row(row)
    will = "" if said.will == "move" else f" to {said.will}"
    told = f"Forecast for the {moves.customers:,} listed, going on as before{will}: {moves.words}."
    scaled = row["control_scaled"]
    if _missing(scaled):
        return f"{told} Nobody in control can tell whether it held."
    told = f"{told} Control, scaled to all of them, makes {scaled:,.0f}"
    if _missing(row["control_scaled_low_80"]):
        return f"{told}."
    bounds = {level: (row[f"control_scaled_low_{level}"], row[f"control_scaled_high_{level}"]) for level in LEVELS}
    held = next((level for level, (low, high) in bounds.items() if low <= scaled <= high), None)
    low, high = bounds[80]
    # A range as wide as what was expected holds nearly anything.
    sure = high - low < moves.expected
    verdict = {
        80: "the forecast held" if sure else "nothing speaks against the forecast, and so few can hardly tell",
        95: "at the edge of what the forecast allows",
        None: f"the forecast was too {'low' if scaled > bounds[95][1] else 'high'}",
    }[held]
    ranges = " or ".join(f"{low:,.0f} to {high:,.0f} ({level} %)" for level, (low, high) in bounds.items())
    return f"{told}: {verdict}. If it was right, so small a group makes {ranges}."


def _missing(value: float | None) -> bool:
    """Return whether a number is missing, in a row of a table or of JSON."""
    return value is None or value != value
